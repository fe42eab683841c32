# Fine-tune CAE ViT-S on ImageNet-1k, 100 epochs, by the ViT-B recipe: the authors publish neither a
# recipe nor a result for it.
#   tools/dist_train.sh configs/cls/finetune_cae_vits_100e.py 8 --pretrained CHECKPOINT
_base_ = './finetune_cae_vitb_100e.py'
pretrained = 'work_dirs/cae_vits_300e/epoch_300.pth'

model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint=pretrained)),
    head=dict(in_channels=384))
