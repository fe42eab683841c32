# Mask R-CNN with CAE ViT-L on COCO 2017, 12 epochs.
# The authors report box AP / mask AP 54.5 / 47.5 after 1600 epochs of pre-training.
#   tools/dist_train.sh configs/det/mask_rcnn_cae_vitl_1x_coco.py 8 --pretrained CHECKPOINT
_base_ = './mask_rcnn_cae_vitb_1x_coco.py'
pretrained = 'work_dirs/cae_vitl_1600e/epoch_1600.pth'

# Keys that change results.
model = dict(
    backbone=dict(
        arch='large', out_indices=(7, 11, 15, 23), layer_scale_init_value=1e-5,
        init_cfg=dict(checkpoint=pretrained)),
    neck=[
        dict(type='mmpretrain.ViTFeaturePyramid', in_channels=1024, norm_cfg=dict(type='SyncBN')),
        dict(type='FPN', in_channels=[1024] * 4, out_channels=256, num_outs=5),
    ])
optim_wrapper = dict(
    optimizer=dict(lr=2e-4),
    paramwise_cfg=dict(layer_decay_rate=0.85))
