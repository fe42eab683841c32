# Attentive probing of CAE v2 ViT-S on ImageNet-1k, 90 epochs, by the recipe of CAE's ViT-B: the authors
# publish none for v2.
#   tools/dist_train.sh configs/cls/attentive_cae_v2_vits_90e.py 8 --pretrained CHECKPOINT
_base_ = './attentive_cae_vits_90e.py'
pretrained = 'work_dirs/cae_v2_vits_300e/epoch_300.pth'

# Keys that change results.
model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
