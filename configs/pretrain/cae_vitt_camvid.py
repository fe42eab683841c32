# A small CAE for street scenes such as CamVid's at 480 x 360, the encoder of
# configs/seg/upernet_cae_vitt_camvid.py: 4.70 M parameters, half an hour on one CPU core. No labels are
# read.
#   tools/train.py configs/tokenizer/dvae_camvid.py --data-root DIR
#   tools/train.py configs/pretrain/cae_vitt_camvid.py --data-root DIR
_base_ = ['../_base_/default_runtime.py', '../_base_/datasets/pretrain_small.py',
          '../_base_/schedules/cae_pretrain.py', '../_base_/models/dvae_small.py']
data_root = 'data/camvid'  # ADE20K's layout
data_prefix = 'images/training'
tokenizer = 'work_dirs/dvae_camvid/epoch_300.pth'

# Keys that change results.
decoder = dict(grid_size=10, embed_dims=192, num_heads=3, depth=2)
model = dict(
    type='ContextAutoencoder',
    backbone=dict(
        type='CAEViT', arch=dict(embed_dims=192, num_layers=6, num_heads=3), img_size=160,
        patch_size=16),
    neck=dict(type='LatentContextualRegressor', **decoder),
    head=dict(type='CAEDecoder', num_outputs=512, **decoder),
    target_generator={{_base_.dvae}})
del decoder
pipeline = [
    dict(type='LoadRGBImage'),
    # The encoder sees 10 x 10 patches of 16 px at about the scale of segmentation, the tokenizer the
    # same crop at 80 px: 10 x 10 codes.
    dict(type='TwoViewCrop', size=160, target_size=80, scale=(0.06, 0.5)),
    dict(type='BlockMask', grid=10, num_masked=50, min_per_block=4),  # half of 10 x 10
    dict(type='PackViews'),
]
train_dataloader = dict(batch_size=32, dataset=dict(dataset=dict(
    data_root=data_root, data_prefix=data_prefix, pipeline=pipeline)))
# A short run needs many steps: 367 images / 32 = 11 per epoch, 2,420 in all.
optim_wrapper = dict(optimizer=dict(lr=1e-3, betas=(0.9, 0.95)))
auto_scale_lr = dict(base_batch_size=32)
train_cfg = dict(max_epochs=220)
param_scheduler = dict(warmup_epochs=10)

# Keys that do not.
default_hooks = dict(checkpoint=dict(interval=20, max_keep_ckpts=2))
