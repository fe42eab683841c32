# UperNet on the small CAE of configs/pretrain/cae_vitt_eurosat.py, for data in ADE20K's layout at half of
# CamVid's size: 11 classes, minutes on a CPU. Other data: --cfg-options classes=FILE
#   tools/train.py configs/seg/upernet_cae_vitt_small.py --data-root DIR --pretrained CHECKPOINT
_base_ = './upernet_cae_vitt_camvid.py'
data_root = 'data/camvid'
pretrained = 'work_dirs/cae_vitt_eurosat/epoch_15.pth'

# Keys that change results.
crop_size = (128, 128)
test_scale = (240, 180)
model = dict(
    data_preprocessor=dict(size=crop_size, test_cfg=dict(size=crop_size)),
    backbone=dict(img_size=crop_size, patch_size=8, init_cfg=dict(checkpoint=pretrained)),
    test_cfg=dict(crop_size=crop_size, stride=(85, 85)))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=test_scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=test_scale, keep_ratio=True),
    # After the resizing: the truth stays that of the file.
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(dataset=dict(data_root=data_root, pipeline=train_pipeline)))
val_dataloader = dict(dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=1000, val_interval=1000)

# Keys that do not.
default_hooks = dict(checkpoint=dict(interval=250, max_keep_ckpts=1))
