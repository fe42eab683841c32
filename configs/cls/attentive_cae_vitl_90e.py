# Attentive probing of CAE ViT-L on ImageNet-1k, 90 epochs, by the same recipe as ViT-B.
# The authors report top-1 81.2 after 1600 epochs of pre-training.
#   tools/dist_train.sh configs/cls/attentive_cae_vitl_90e.py 8 --pretrained CHECKPOINT
_base_ = './attentive_cae_vitb_90e.py'
pretrained = 'work_dirs/cae_vitl_1600e/epoch_1600.pth'

model = dict(
    backbone=dict(arch='large', frozen_stages=24, init_cfg=dict(checkpoint=pretrained)),
    head=dict(in_channels=1024, num_heads=16))
