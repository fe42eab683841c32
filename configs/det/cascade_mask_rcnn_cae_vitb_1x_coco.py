# Cascade Mask R-CNN with CAE ViT-B on COCO 2017, 12 epochs.
# Of the authors' are the model (their code has it, with no config that trains it) and, it seems, a mask AP
# of 45.5: the paper's results list that number without a model, and it is none of Mask R-CNN's. Ours is
# the rest: augmentation, optimisation and drop path are those of Mask R-CNN with ViT-B.
#   tools/dist_train.sh configs/det/cascade_mask_rcnn_cae_vitb_1x_coco.py 8 --pretrained CHECKPOINT
_base_ = [
    '../_base_/datasets/coco_instance.py',
    '../_base_/models/cascade_mask_rcnn_cae_vitb.py',
    '../_base_/schedules/det_1x.py',
]
