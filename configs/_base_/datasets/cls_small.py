# A labelled folder of small images: train/CLASS/*, val/CLASS/*.
data_root = 'data/images'
data_preprocessor = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True, num_classes=10)

# --- what changes results -----------------------------------------------------------------------
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.6, 1.0), backend='pillow',
         interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
val_pipeline = [  # images that have the size already stay as they are
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=64, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=64),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=32,
    drop_last=True,
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ReproducibleDataset',
        dataset=dict(type='CustomDataset', data_root=data_root, data_prefix='train',
                     pipeline=train_pipeline)),
    # --- what changes only speed ----------------------------------------------------------------
    num_workers=1,
    persistent_workers=True,
    pin_memory=True,
)
val_dataloader = dict(
    batch_size=128,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='CustomDataset', data_root=data_root, data_prefix='val',
                 pipeline=val_pipeline),
    num_workers=0,
    persistent_workers=False,
)
val_evaluator = dict(type='Accuracy', topk=(1,))
val_cfg = dict()
test_dataloader, test_evaluator, test_cfg = val_dataloader, val_evaluator, val_cfg
