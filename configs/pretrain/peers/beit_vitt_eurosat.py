# mmpretrain's BEiT, with the images, tokenizer, optimisation and size of encoder of cae_vitt_eurosat, to
# compare with CAE. Its encoder has relative positions alone: docs/peers.md says how to evaluate it.
#   tools/train.py configs/pretrain/peers/beit_vitt_eurosat.py --data-root DIR
_base_ = '../cae_vitt_eurosat.py'

# Keys that change results.
model = dict(
    _delete_=True, type='BEiT',
    backbone=dict(
        type='BEiTPretrainViT', img_size=64, patch_size=8, layer_scale_init_value=0.1,
        arch=dict(embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768),
        init_cfg=[dict(type='TruncNormal', std=0.02, layer='Linear'),
                  dict(type='TruncNormal', std=0.02, layer='Conv2d'),
                  dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0)]),
    head=dict(type='BEiTV1Head', embed_dims=192, num_embed=512, loss=dict(type='CrossEntropyLoss')),
    target_generator=dict(type='TokenizerLogits', tokenizer={{_base_.dvae}}))
data_preprocessor = dict(
    type='TwoNormDataPreprocessor', second_mean=[0., 0., 0.], second_std=[255., 255., 255.], to_rgb=True)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TwoViewCrop', size=64, target_size=64, scale=(0.6, 1.0)),
    # 75 of 196 patches, mmpretrain's share.
    dict(type='BEiTMaskGenerator', input_size=8, num_masking_patches=24, min_num_patches=4),
    dict(type='KeyMapper', mapping=dict(img=['img', 'target_img']), remapping=dict(img='img')),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=pipeline)))
