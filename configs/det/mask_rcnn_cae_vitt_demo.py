# Mask R-CNN on the demo's CAE, for the demo's scenes of digits, 128 x 128: minutes on 2 CPU cores.
#   tools/train.py configs/det/mask_rcnn_cae_vitt_demo.py --pretrained demo_out/pretrain/epoch_14.pth
# The same network from scratch; the decay with depth is for pre-trained layers:
#   ... --pretrained none --cfg-options optim_wrapper.paramwise_cfg.layer_decay_rate=1
_base_ = './mask_rcnn_cae_vitb_1x_coco.py'
data_root = 'demo_out/data/coco'
num_classes = 10
classes = [*map(str, range(10))]
pretrained = 'demo_out/pretrain/epoch_14.pth'

# Keys that change results.
strides = [2, 4, 8, 16]  # of patches of 8 px, from a quarter to twice
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=128, num_layers=6, num_heads=4), img_size=64, patch_size=8,
        out_indices=(1, 2, 3, 5), drop_path_rate=0.1, with_cp=False,
        init_cfg=dict(checkpoint=pretrained)),
    neck=[
        dict(type='mmpretrain.ViTFeaturePyramid', in_channels=128, norm_cfg=dict(type='SyncBN')),
        dict(type='FPN', in_channels=[128] * 4, out_channels=48, num_outs=4, norm_cfg=dict(type='SyncBN')),
    ],
    # Anchors of 16, 32, 64 and 128 px: a digit's box is 30 to 45 px high and at most as wide.
    rpn_head=dict(
        in_channels=48, feat_channels=48, anchor_generator=dict(ratios=[1., 2.], strides=strides)),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=48, featmap_strides=strides, finest_scale=14),
        bbox_head=dict(
            num_shared_convs=2, in_channels=48, conv_out_channels=48, fc_out_channels=256,
            num_classes=num_classes),
        mask_roi_extractor=dict(out_channels=48, featmap_strides=strides, finest_scale=14),
        mask_head=dict(
            num_convs=2, in_channels=48, conv_out_channels=48, num_classes=num_classes,
            norm_cfg=dict(type='SyncBN'))),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=500, max_per_img=300),
        rcnn=dict(assigner=dict(neg_iou_thr=0.3), sampler=dict(num=48, pos_fraction=0.5))),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=50), rcnn=dict(max_per_img=20)))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs'),  # no mirror images: these are digits
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=4, num_workers=1,
    dataset=dict(dataset=dict(
        data_root=data_root, metainfo=dict(classes=classes), pipeline=train_pipeline)))
val_dataloader = dict(
    batch_size=8, num_workers=1,
    dataset=dict(data_root=data_root, metainfo=dict(classes=classes), pipeline=test_pipeline))
val_evaluator = dict(ann_file=data_root + '/annotations/instances_val2017.json')
test_dataloader, test_evaluator = val_dataloader, val_evaluator
optim_wrapper = dict(
    optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay_rate=0.9), clip_grad=dict(max_norm=5))
auto_scale_lr = dict(base_batch_size=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, end=51),
    dict(type='MultiStepLR', milestones=[5], gamma=0.1, by_epoch=True),
]
train_cfg = dict(max_epochs=6, val_interval=2)

# Keys that do not.
default_hooks = dict(checkpoint=dict(interval=2, max_keep_ckpts=1))
