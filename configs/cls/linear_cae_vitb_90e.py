# Linear probing of CAE ViT-B on ImageNet-1k, 90 epochs: the encoder is frozen.
# The authors report top-1 64.5 after 300 epochs of pre-training, 68.9 after 800, 70.3 after 1600.
#   tools/dist_train.sh configs/cls/linear_cae_vitb_90e.py 8 --pretrained CHECKPOINT
_base_ = [
    '../_base_/datasets/imagenet_cls.py',
    '../_base_/schedules/cls_linear.py',
    '../_base_/default_runtime.py',
]
pretrained = 'work_dirs/cae_vitb_800e/epoch_800.pth'

# Keys that change results.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='CAEViT', arch='base', img_size=224, patch_size=16, out_type='cls_token',
        frozen_stages=12,  # all blocks, and with them everything
        init_cfg=dict(type='Pretrained', checkpoint=pretrained, prefix='backbone.')),
    neck=dict(type='ClsBatchNormNeck', input_features=768, affine=False, eps=1e-6),
    head=dict(
        type='LinearClsHead', num_classes={{_base_.num_classes}}, in_channels=768,
        # The official one is truncated at +-2, which is no truncation.
        init_cfg=dict(type='Normal', layer='Linear', std=0.01)))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ClippedResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
# 16384 images per step = 8 GPUs x 2048 (official: 32 GPUs x 512).
train_dataloader = dict(batch_size=2048, dataset=dict(dataset=dict(pipeline=train_pipeline)))
default_hooks = dict(
    classes=dict(type='ClassesHook'),
    # Each GPU has its own running statistics: their mean is evaluated and saved.
    sync_buffers=dict(type='SyncBuffersHook'))
