# Mask R-CNN on the frozen CAE ViT-B, COCO 2017, 12 epochs: what its features are worth to a detector as
# they are. Neck and heads train by the recipe of mask_rcnn_cae_vitb_1x_coco.py. No result is published.
#   tools/dist_train.sh configs/det/mask_rcnn_cae_vitb_frozen_1x_coco.py 8 --pretrained CHECKPOINT
_base_ = './mask_rcnn_cae_vitb_1x_coco.py'

# Keys that change results.
model = dict(backbone=dict(
    frozen_stages=12,  # all blocks, and with them everything
    drop_path_rate=0.,
    with_cp=False))  # changes no result: a frozen backbone keeps nothing for a backward pass
