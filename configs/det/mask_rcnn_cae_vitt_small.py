# Mask R-CNN on the small CAE of configs/pretrain/cae_vitt_eurosat.py, for COCO's layout at a third of
# COCO's size: for comparing encoders on a CPU, not for finding objects.
#   tools/train.py configs/det/mask_rcnn_cae_vitt_small.py --data-root DIR --pretrained CHECKPOINT
# Other classes than COCO's: --cfg-options classes=FILE
_base_ = './mask_rcnn_cae_vitb_1x_coco.py'
data_root = 'data/coco'
pretrained = 'work_dirs/cae_vitt_eurosat/epoch_15.pth'

# Keys that change results.
strides = [2, 4, 8, 16]  # of patches of 8 px, from a quarter to twice
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=192, num_layers=6, num_heads=3), img_size=(160, 224),
        patch_size=8, out_indices=(1, 2, 3, 5), drop_path_rate=0.1, with_cp=False,
        init_cfg=dict(checkpoint=pretrained)),
    neck=[
        dict(type='mmpretrain.ViTFeaturePyramid', in_channels=192, norm_cfg=dict(type='SyncBN')),
        dict(type='FPN', in_channels=[192] * 4, out_channels=48, num_outs=4, norm_cfg=dict(type='SyncBN')),
    ],
    rpn_head=dict(in_channels=48, feat_channels=48, anchor_generator=dict(strides=strides)),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=48, featmap_strides=strides, finest_scale=14),
        bbox_head=dict(num_shared_convs=2, in_channels=48, conv_out_channels=48, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=48, featmap_strides=strides, finest_scale=14),
        mask_head=dict(
            num_convs=2, in_channels=48, conv_out_channels=48, norm_cfg=dict(type='SyncBN'))),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=500, max_per_img=300),
        rcnn=dict(sampler=dict(num=96))),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100)))
train_scales = [(224, short) for short in (128, 144, 160)]
crop_scales = [(224, short) for short in (112, 128)]
crop_size = (80, 128)
test_scale = (224, 160)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomChoice', transforms=[
        [
            dict(type='RandomChoiceResize', scales=train_scales, keep_ratio=True),
        ],
        [
            dict(type='RandomChoiceResize', scales=crop_scales, keep_ratio=True),
            dict(type='RandomCrop', crop_type='absolute_range', crop_size=crop_size,
                 allow_negative_crop=True),
            dict(type='RandomChoiceResize', scales=train_scales, keep_ratio=True),
        ],
    ]),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=test_scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    num_workers=1, dataset=dict(dataset=dict(data_root=data_root, pipeline=train_pipeline)))
val_dataloader = dict(num_workers=1, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay_rate=0.9))
auto_scale_lr = dict(base_batch_size=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, end=51),
    dict(type='MultiStepLR', milestones=[16], gamma=0.1, by_epoch=True),
]
train_cfg = dict(max_epochs=20, val_interval=20)

# Keys that do not.
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=1))
