# What it costs to fine-tune as mmpretrain's CAE does, one difference at a time: docs/evidence.md.
#   tools/benchmark.py configs/benchmark/evidence_mmpretrain.py --models cae=CKPT --imagenet DIR
_base_ = 'evidence_eurosat.py'
tasks = dict(
    # Pixels of another mean and deviation than the encoder was trained with.
    finetune_half=dict(
        run='configs/cls/finetune_cae_vitt_eurosat.py', data='imagenet', metric='accuracy/top1',
        options=['num_classes={classes}', 'max_epochs=2', 'optim_wrapper.amp=True',
                 'data_preprocessor.mean=[127.5,127.5,127.5]', 'data_preprocessor.std=[127.5,127.5,127.5]',
                 'model.backbone.init_cfg.trained_with.mean=None',
                 'model.backbone.init_cfg.trained_with.std=None']),
    # A quarter of the images per step, at the same rate.
    finetune_quarter=dict(
        run='configs/cls/finetune_cae_vitt_eurosat.py', data='imagenet', metric='accuracy/top1',
        options=['num_classes={classes}', 'max_epochs=2', 'optim_wrapper.amp=True',
                 'train_dataloader.batch_size=8']))
