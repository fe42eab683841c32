# CAE v2 ViT-Ti (12 heads), 300 epochs on ImageNet-1k: 5.67 M parameters, 5.49 M of them the encoder.
#   tools/dist_train.sh configs/pretrain/cae_v2_vitt_300e.py 8 --cfg-options tokenizer=CLIP_CHECKPOINT
_base_ = './cae_v2_vits_300e.py'

# Keys that change results.
model = dict(
    backbone=dict(arch='tiny'),
    neck=dict(in_dims=192, embed_dims=96),  # a projection joins them; 12 heads of 8
    head=dict(embed_dims=96))
pipeline = [
    dict(type='LoadRGBImage'),
    dict(type='NumpyToPIL'),
    dict(type='torchvision/ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    dict(type='PILToNumpy'),
    dict(type='TwoViewCrop', size=224, target_size=224, target_interpolation='bicubic', scale=(0.4, 1.0),
         backend='torch'),
    dict(type='BlockMask', grid=14, num_masked=30, min_per_block=16),
    dict(type='PackViews'),
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=pipeline)))
