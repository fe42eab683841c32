# mmpretrain's MAE, with the encoder, images and optimisation of cae_vitt_eurosat, to compare with CAE.
#   tools/train.py configs/pretrain/peers/mae_vitt_eurosat.py --data-root DIR
_base_ = './mae_vitt_demo.py'
data_root = 'data/eurosat'

# --- what changes results -----------------------------------------------------------------------
model = dict(
    backbone=dict(arch=dict(embed_dims=192, num_heads=3, feedforward_channels=768)),
    neck=dict(embed_dim=192, decoder_embed_dim=192, decoder_num_heads=3))
pipeline = [
    dict(type='LoadRGBImage'),
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.6, 1.0), backend='pillow',
         interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(dataset=dict(data_root=data_root, pipeline=pipeline)))
