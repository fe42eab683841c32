# UperNet on the small CAE of configs/pretrain/cae_vitt_camvid.py, for street scenes such as CamVid's at
# 480 x 360: 11 classes, 3.74 M parameters, half an hour on one CPU core.
#   tools/train.py configs/seg/upernet_cae_vitt_camvid.py --data-root DIR --pretrained CHECKPOINT
# The same network from scratch; the decay with depth is for pre-trained layers:
#   ... --pretrained none --cfg-options optim_wrapper.paramwise_cfg.layer_decay_rate=1
_base_ = './upernet_cae_vitb_160k_ade20k.py'
data_root = 'data/camvid'  # ADE20K's layout
num_classes = 11
classes = ['sky', 'building', 'pole', 'road', 'sidewalk', 'tree', 'sign', 'fence', 'car', 'pedestrian',
           'bicyclist']
pretrained = 'work_dirs/cae_vitt_camvid/epoch_220.pth'

# Keys that change results.
crop_size = (256, 256)
norm_cfg = dict(type='SyncBN')
model = dict(
    data_preprocessor=dict(size=crop_size, test_cfg=dict(size=crop_size)),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=192, num_layers=6, num_heads=3), img_size=crop_size,
        pos_mode='recompute',
        out_indices=(1, 2, 3, 5), init_cfg=dict(checkpoint=pretrained)),
    neck=dict(in_channels=192),
    decode_head=dict(in_channels=[192] * 4, channels=48, num_classes=num_classes),
    auxiliary_head=dict(in_channels=192, channels=48, num_classes=num_classes),
    test_cfg=dict(crop_size=crop_size, stride=(171, 171)))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(480, 360), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
dataset = dict(
    type='BaseSegDataset', reduce_zero_label=True, metainfo=dict(classes=classes), data_root=data_root)
train_dataloader = dict(
    batch_size=8, num_workers=1, dataset=dict(dataset=dict(**dataset, pipeline=train_pipeline)))
val_dataloader = dict(num_workers=1, dataset=dict(**dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
del dataset
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay_rate=0.75))
auto_scale_lr = dict(base_batch_size=8)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, end=101, by_epoch=False),
    dict(type='PolyLR', power=1.0, eta_min=0., by_epoch=False),
]
train_cfg = dict(max_iters=1500, val_interval=250)

# Keys that do not.
default_hooks = dict(checkpoint=dict(interval=250, max_keep_ckpts=1))
