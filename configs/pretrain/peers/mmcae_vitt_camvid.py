# mmpretrain's CAE, with the encoder, images, tokenizer and optimisation of cae_vitt_camvid, to compare
# with ours.
#   tools/train.py configs/pretrain/peers/mmcae_vitt_camvid.py --data-root DIR
_base_ = '../cae_vitt_camvid.py'

# Keys that change results.
model = dict(
    _delete_=True, type='CAE',
    backbone=dict(
        type='CAEPretrainViT', img_size=160, patch_size=16, layer_scale_init_value=0.1,
        arch=dict(embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768)),
    neck=dict(
        type='CAENeck', num_classes=512, embed_dims=192, num_heads=3, regressor_depth=2, decoder_depth=2,
        layer_scale_init_value=0.1, mask_tokens_num=38),
    head=dict(type='CAEHead', loss=dict(type='CAELoss', lambd=2)),
    target_generator=dict(type='TokenizerLogits', tokenizer={{_base_.dvae}}))
data_preprocessor = dict(
    type='TwoNormDataPreprocessor', second_mean=[0., 0., 0.], second_std=[255., 255., 255.], to_rgb=True)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TwoViewCrop', size=160, target_size=80, scale=(0.06, 0.5)),
    # 75 of 196 patches, mmpretrain's share.
    dict(type='BEiTMaskGenerator', input_size=10, num_masking_patches=38, min_num_patches=4),
    dict(type='KeyMapper', mapping=dict(img=['img', 'target_img']), remapping=dict(img='img')),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=pipeline)))

# Keys that do not.
find_unused_parameters = True  # the teacher is a part of the model that has no gradients
