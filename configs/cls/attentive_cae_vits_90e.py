# Attentive probing of CAE ViT-S on ImageNet-1k, 90 epochs, by the ViT-B recipe: the authors publish
# neither a recipe nor a result for it.
#   tools/dist_train.sh configs/cls/attentive_cae_vits_90e.py 8 --pretrained CHECKPOINT
_base_ = './attentive_cae_vitb_90e.py'
pretrained = 'work_dirs/cae_vits_300e/epoch_300.pth'

model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint=pretrained)),
    head=dict(in_channels=384))
