# Fine-tune the small CAE of configs/pretrain/cae_vitt_flowers.py: minutes on 2 CPU cores.
#   tools/train.py configs/cls/finetune_cae_vitt_flowers.py --data-root DIR --pretrained CHECKPOINT
# The same network from scratch; the decay with depth is for pre-trained layers:
#   ... --pretrained none --cfg-options optim_wrapper.paramwise_cfg.layer_decay_rate=1
_base_ = './finetune_cae_vitt_eurosat.py'
data_root = 'data/flowers'
num_classes = 5
pretrained = 'work_dirs/cae_vitt_flowers/epoch_85.pth'

# Keys that change results.
model = dict(
    backbone=dict(img_size=96, patch_size=12, init_cfg=dict(checkpoint=pretrained)),
    head=dict(num_classes=num_classes))
data_preprocessor = dict(num_classes=num_classes)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=96, crop_ratio_range=(0.4, 1.0), backend='pillow',
         interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
val_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=96, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=96),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(dataset=dict(data_root=data_root, pipeline=train_pipeline)))
val_dataloader = dict(dataset=dict(data_root=data_root, pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(data_root=data_root, pipeline=val_pipeline))
# 2,934 images / 32 = 91 steps per epoch.
train_cfg = dict(max_epochs=15)
param_scheduler = dict(warmup_epochs=2)
default_hooks = dict(checkpoint=dict(interval=5))
