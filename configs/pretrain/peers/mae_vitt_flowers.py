# mmpretrain's MAE, with the encoder, images and optimisation of cae_vitt_flowers, to compare with CAE.
#   tools/train.py configs/pretrain/peers/mae_vitt_flowers.py --data-root DIR
_base_ = '../cae_vitt_flowers.py'
tokenizer = None

# Keys that change results.
model = dict(
    _delete_=True, type='MAE',
    backbone=dict(
        type='MAEViT', arch=dict(embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768),
        img_size=96, patch_size=12, mask_ratio=0.75),
    neck=dict(
        type='MAEPretrainDecoder', num_patches=64, patch_size=12, embed_dim=192,
        decoder_embed_dim=192, decoder_depth=2, decoder_num_heads=3),
    head=dict(
        type='MAEPretrainHead', norm_pix=True, patch_size=12,
        loss=dict(type='PixelReconstructionLoss', criterion='L2')),
    init_cfg=[dict(type='Xavier', layer='Linear', distribution='uniform'),
              dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0)])
pipeline = [
    dict(type='LoadRGBImage'),
    dict(type='TwoViewCrop', size=96, scale=(0.4, 1.0)),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=pipeline)))
