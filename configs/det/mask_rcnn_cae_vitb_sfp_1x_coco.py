# Mask R-CNN with CAE ViT-B and ViTDet's simple feature pyramid (arXiv 2203.16527) on COCO 2017, 12 epochs.
# In place of the maps of four blocks and FPN, the last map alone; all attention stays global, where ViTDet
# has windows. The rest is the recipe of mask_rcnn_cae_vitb_1x_coco.py. No result of it is published.
#   tools/dist_train.sh configs/det/mask_rcnn_cae_vitb_sfp_1x_coco.py 8 --pretrained CHECKPOINT
_base_ = './mask_rcnn_cae_vitb_1x_coco.py'

# Keys that change results.
model = dict(
    backbone=dict(out_indices=-1),
    neck=dict(
        _delete_=True, type='mmpretrain.SimpleFeaturePyramid', in_channels=768, out_channels=256))
