# Attentive probing of CAE ViT-B on ImageNet-1k, 90 epochs: the encoder is frozen.
# The authors report top-1 74.0 after 300 epochs of pre-training, 75.9 after 800, 77.2 after 1600. Their
# evaluation normalises with the statistics of each evaluation batch, ours with the running ones.
#   tools/dist_train.sh configs/cls/attentive_cae_vitb_90e.py 8 --pretrained CHECKPOINT
_base_ = [
    '../_base_/datasets/imagenet_cls.py',
    '../_base_/schedules/cls_attentive.py',
    '../_base_/default_runtime.py',
]
pretrained = 'work_dirs/cae_vitb_800e/epoch_800.pth'

# Keys that change results.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='CAEViT', arch='base', img_size=224, patch_size=16, out_type='raw',
        frozen_stages=12,  # all blocks, and with them everything
        init_cfg=dict(type='Pretrained', checkpoint=pretrained, prefix='backbone.')),
    head=dict(
        type='AttentiveProbeHead', num_classes={{_base_.num_classes}}, in_channels=768,
        num_heads=12))
# 8192 images per step = 8 GPUs x 1024 (official: 32 GPUs x 256).
train_dataloader = dict(batch_size=1024)
default_hooks = dict(
    classes=dict(type='ClassesHook'),
    # Each GPU has its own running statistics: their mean is evaluated and saved.
    sync_buffers=dict(type='SyncBuffersHook'))
