# A small CAE for 64 px images such as EuroSAT's: 3.70 M parameters, 35 minutes of one CPU core. In so short
# a training the alignment and the decoder's blocks are not worth their time (docs/evidence.md), so this one
# has neither; ablation/cae_vitt_eurosat_whole.py has both.
#   tools/train.py configs/tokenizer/dvae_eurosat.py --data-root DIR
#   tools/train.py configs/pretrain/cae_vitt_eurosat.py --data-root DIR
_base_ = ['../_base_/default_runtime.py', '../_base_/datasets/pretrain_small.py',
          '../_base_/schedules/cae_pretrain.py', '../_base_/models/dvae_small.py']
data_root = 'data/eurosat'  # train/CLASS/*.jpg, whose labels only the k-NN reads, and val/CLASS/*.jpg
tokenizer = 'work_dirs/dvae_eurosat/epoch_10.pth'

# Keys that change results.
decoder = dict(grid_size=8, embed_dims=192, num_heads=3)
model = dict(
    type='ContextAutoencoder',
    backbone=dict(
        type='CAEViT', arch=dict(embed_dims=192, num_layers=6, num_heads=3), img_size=64,
        patch_size=8),
    neck=dict(type='LatentContextualRegressor', depth=2, **decoder),
    head=dict(type='CAEDecoder', depth=0, num_outputs=512, **decoder),
    target_generator={{_base_.dvae}},
    align_weight=0.)
del decoder
pipeline = [
    dict(type='LoadRGBImage'),
    # 60 % at least: smaller boxes of 64 px would be enlarged to a blur.
    dict(type='TwoViewCrop', size=64, target_size=64, scale=(0.6, 1.0)),
    dict(type='BlockMask', grid=8, num_masked=32, min_per_block=4),  # half of 8 x 8
    dict(type='PackViews'),
]
train_dataloader = dict(
    batch_size=32, dataset=dict(dataset=dict(data_root=data_root, pipeline=pipeline)))
# A short run needs many steps: 10,000 images / 32 = 312 per epoch.
optim_wrapper = dict(optimizer=dict(lr=1e-3, betas=(0.9, 0.95)))
auto_scale_lr = dict(base_batch_size=32)
train_cfg = dict(max_epochs=15)
param_scheduler = dict(warmup_epochs=1.5)

# Keys that do not.
default_hooks = dict(
    checkpoint=dict(interval=3, max_keep_ckpts=2),
    knn=dict(type='KNNHook', data_root=data_root, interval=3, probe=True))
