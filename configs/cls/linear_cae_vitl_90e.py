# Linear probing of CAE ViT-L on ImageNet-1k, 90 epochs, by the same recipe as ViT-B.
# The authors report top-1 77.8 after 1600 epochs of pre-training.
#   tools/dist_train.sh configs/cls/linear_cae_vitl_90e.py 8 --pretrained CHECKPOINT
_base_ = './linear_cae_vitb_90e.py'
pretrained = 'work_dirs/cae_vitl_1600e/epoch_1600.pth'

model = dict(
    backbone=dict(arch='large', frozen_stages=24, init_cfg=dict(checkpoint=pretrained)),
    neck=dict(input_features=1024),
    head=dict(in_channels=1024))
