# CAE v2 (arXiv 2211.09799) ViT-B, 300 epochs on ImageNet-1k, with CLIP ViT-B/16 as the teacher: 114.42 M
# parameters, 85.66 M of them the encoder. The authors' scripts state no result.
#   tools/dist_train.sh configs/pretrain/cae_v2_vitb_300e.py 8 --cfg-options tokenizer=CLIP_CHECKPOINT
_base_ = './cae_vitb_300e.py'

# Keys that change results.
model = dict(
    neck=dict(final_norm=False),
    head=dict(_delete_=True, type='TokenDecoder', grid_size=14, num_outputs=512, embed_dims=768),
    target_generator=dict(
        _delete_=True, type='TeacherFeatures', projection=512,
        backbone=dict(type='TimmViT', name='vit_base_patch16_clip_quickgelu_224')),
    align_weight=0.)
pipeline = [
    dict(type='LoadRGBImage'),
    # Pillow's, before the two views part. Its order of channels stays RGB.
    dict(type='NumpyToPIL'),
    dict(type='torchvision/ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    dict(type='PILToNumpy'),
    dict(type='TwoViewCrop', size=224, target_size=224, target_interpolation='bicubic', scale=(0.4, 1.0),
         backend='torch'),
    dict(type='BlockMask', grid=14, num_masked=98, min_per_block=16),
    dict(type='PackViews'),
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=pipeline)))
