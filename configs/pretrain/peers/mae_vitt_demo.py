# mmpretrain's MAE, with the demo's encoder, images and optimisation, to compare with CAE.
#   tools/train.py configs/pretrain/peers/mae_vitt_demo.py
_base_ = ['../../_base_/default_runtime.py', '../../_base_/datasets/pretrain_small.py',
          '../../_base_/schedules/cae_pretrain.py']
data_root = 'demo_out/data/imagenet'

# --- what changes results -----------------------------------------------------------------------
model = dict(
    type='MAE',
    backbone=dict(
        type='MAEViT', arch=dict(embed_dims=128, num_layers=6, num_heads=4, feedforward_channels=512),
        img_size=64, patch_size=8, mask_ratio=0.75),
    neck=dict(
        type='MAEPretrainDecoder', num_patches=64, patch_size=8, in_chans=3, embed_dim=128,
        decoder_embed_dim=128, decoder_depth=2, decoder_num_heads=4, mlp_ratio=4),
    head=dict(
        type='MAEPretrainHead', norm_pix=True, patch_size=8,
        loss=dict(type='PixelReconstructionLoss', criterion='L2')))
pipeline = [
    dict(type='LoadRGBImage'),
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.6, 1.0), backend='pillow',
         interpolation='bicubic'),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=32, dataset=dict(dataset=dict(data_root=data_root, pipeline=pipeline)))
optim_wrapper = dict(optimizer=dict(lr=1e-3, betas=(0.9, 0.95)))
auto_scale_lr = dict(base_batch_size=32)
train_cfg = dict(max_epochs=20)
param_scheduler = dict(warmup_epochs=2)
