# Linear probing of CAE v2 ViT-Ti on ImageNet-1k, 90 epochs. The authors' scripts state no result.
#   tools/dist_train.sh configs/cls/linear_cae_v2_vitt_90e.py 8 --pretrained CHECKPOINT
_base_ = './linear_cae_vitb_90e.py'
pretrained = 'work_dirs/cae_v2_vitt_300e/epoch_300.pth'

# Keys that change results.
model = dict(
    backbone=dict(arch='tiny', init_cfg=dict(checkpoint=pretrained)),
    neck=dict(input_features=192),
    head=dict(in_channels=192))
