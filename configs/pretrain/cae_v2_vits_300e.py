# CAE v2 ViT-S (12 heads), 300 epochs on ImageNet-1k: 23.57 M parameters, 21.59 M of them the encoder.
#   tools/dist_train.sh configs/pretrain/cae_v2_vits_300e.py 8 --cfg-options tokenizer=CLIP_CHECKPOINT
_base_ = './cae_v2_vitb_300e.py'

# Keys that change results.
model = dict(
    backbone=dict(arch='small'),
    neck=dict(embed_dims=384, depth=1),
    head=dict(embed_dims=384))
pipeline = [
    dict(type='LoadRGBImage'),
    dict(type='NumpyToPIL'),
    dict(type='torchvision/ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    dict(type='PILToNumpy'),
    dict(type='TwoViewCrop', size=224, target_size=224, target_interpolation='bicubic', scale=(0.4, 1.0),
         backend='torch'),
    dict(type='BlockMask', grid=14, num_masked=49, min_per_block=16),  # a quarter
    dict(type='PackViews'),
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=pipeline)))
