# Mask R-CNN with CAE ViT-S on COCO 2017, 12 epochs, by the ViT-B recipe: the authors publish neither a
# recipe nor a result for it.
#   tools/dist_train.sh configs/det/mask_rcnn_cae_vits_1x_coco.py 8 --pretrained CHECKPOINT
_base_ = './mask_rcnn_cae_vitb_1x_coco.py'
pretrained = 'work_dirs/cae_vits_300e/epoch_300.pth'

# Keys that change results.
model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint=pretrained)),
    neck=[
        dict(type='mmpretrain.ViTFeaturePyramid', in_channels=384, norm_cfg=dict(type='SyncBN')),
        dict(type='FPN', in_channels=[384] * 4, out_channels=256, num_outs=5),
    ])
