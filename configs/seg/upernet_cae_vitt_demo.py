# UperNet on the demo's CAE, for the demo's scenes of digits, 128 x 128: minutes on 2 CPU cores.
#   tools/train.py configs/seg/upernet_cae_vitt_demo.py --pretrained demo_out/pretrain/epoch_14.pth
# The same network from scratch; the decay with depth is for pre-trained layers:
#   ... --pretrained none --cfg-options optim_wrapper.paramwise_cfg.layer_decay_rate=1
_base_ = './upernet_cae_vitt_camvid.py'
data_root = 'demo_out/data/ade'
classes = ['background', *map(str, range(10))]
pretrained = 'demo_out/pretrain/epoch_14.pth'

# Keys that change results.
crop_size = (128, 128)
# Fourteen of fifteen pixels are background.
loss = dict(type='CrossEntropyLoss', class_weight=[0.1] + [1.] * 10)
model = dict(
    data_preprocessor=dict(size=crop_size, test_cfg=dict(size=crop_size)),
    backbone=dict(
        arch=dict(embed_dims=128, num_heads=4), img_size=crop_size, patch_size=8,
        out_indices=(2, 3, 4, 5), drop_path_rate=0., init_cfg=dict(checkpoint=pretrained)),
    neck=dict(in_channels=128),
    decode_head=dict(in_channels=[128] * 4, channels=96, loss_decode=loss),
    auxiliary_head=dict(in_channels=128, loss_decode=dict(**loss, loss_weight=0.4)),
    test_cfg=dict(crop_size=crop_size, stride=(85, 85)))
del loss
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(128, 128), ratio_range=(0.9, 1.2), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='PackSegInputs'),  # no mirror images: these are digits
]
dataset = dict(metainfo=dict(classes=classes), data_root=data_root)
train_dataloader = dict(batch_size=4, dataset=dict(dataset=dict(**dataset, pipeline=train_pipeline)))
val_dataloader = dict(batch_size=8, dataset=dataset)
test_dataloader = val_dataloader
del dataset
optim_wrapper = dict(optimizer=dict(lr=4e-3), paramwise_cfg=dict(layer_decay_rate=0.9))
auto_scale_lr = dict(base_batch_size=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, end=51, by_epoch=False),
    dict(type='PolyLR', power=1.0, eta_min=0., by_epoch=False),
]
train_cfg = dict(max_iters=600, val_interval=100)

# Keys that do not.
default_hooks = dict(checkpoint=dict(interval=100, max_keep_ckpts=1))
