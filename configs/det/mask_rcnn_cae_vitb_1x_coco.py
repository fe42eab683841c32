# Mask R-CNN with CAE ViT-B on COCO 2017, 12 epochs.
# The authors report box AP / mask AP 48.3 / 42.7 after 300 epochs of pre-training, 49.9 / 43.9 after 800,
# 50.3 / 44.2 after 1600.
#   tools/dist_train.sh configs/det/mask_rcnn_cae_vitb_1x_coco.py 8 --pretrained CHECKPOINT
_base_ = [
    '../_base_/datasets/coco_instance.py',
    '../_base_/models/mask_rcnn_cae_vitb.py',
    '../_base_/schedules/det_1x.py',
]
