# A small CAE on the demo's 64 px images: 1.7 M parameters, minutes on 2 CPU cores. Like the other small
# ones it has neither alignment nor blocks in the decoder, which are not worth their time here
# (docs/evidence.md).
#   tools/train.py configs/pretrain/cae_vitt_demo.py --cfg-options tokenizer=PATH
_base_ = ['../_base_/default_runtime.py', '../_base_/datasets/pretrain_small.py',
          '../_base_/schedules/cae_pretrain.py', '../_base_/models/dvae_small.py']
data_root = 'demo_out/data/imagenet'
tokenizer = 'demo_out/tokenizer/epoch_5.pth'

# --- what changes results -----------------------------------------------------------------------
decoder = dict(grid_size=8, embed_dims=128, num_heads=4)
model = dict(
    type='ContextAutoencoder',
    data_preprocessor=dict(type='CAEDataPreprocessor'),
    backbone=dict(
        type='CAEViT', arch=dict(embed_dims=128, num_layers=6, num_heads=4), img_size=64,
        patch_size=8),
    neck=dict(type='LatentContextualRegressor', depth=2, **decoder),
    head=dict(type='CAEDecoder', depth=0, num_outputs=512, **decoder),
    target_generator={{_base_.dvae}},
    align_weight=0.)
del decoder
pipeline = [
    dict(type='LoadRGBImage'),
    # Digits: no mirror images, and crops that keep the digit.
    dict(type='TwoViewCrop', size=64, scale=(0.6, 1.0), flip_prob=0.),
    dict(type='BlockMask', grid=8, num_masked=32, min_per_block=4),  # half of 8 x 8
    dict(type='PackViews'),
]
train_dataloader = dict(
    batch_size=32, dataset=dict(dataset=dict(data_root=data_root, pipeline=pipeline)))
# A short run needs many steps: 8,000 images / 32 = 250 per epoch.
optim_wrapper = dict(optimizer=dict(lr=1e-3, betas=(0.9, 0.95)))
auto_scale_lr = dict(base_batch_size=32)
train_cfg = dict(max_epochs=14)
param_scheduler = dict(warmup_epochs=1.2)
