# Fine-tune CAE v2 ViT-S on ImageNet-1k, 200 epochs. The authors' scripts state no result.
#   tools/dist_train.sh configs/cls/finetune_cae_v2_vits_200e.py 8 --pretrained CHECKPOINT
_base_ = './finetune_cae_v2_vitb_100e.py'
pretrained = 'work_dirs/cae_v2_vits_300e/epoch_300.pth'

# Keys that change results.
model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint=pretrained)),
    head=dict(in_channels=384))
optim_wrapper = dict(optimizer=dict(lr=4e-4))
param_scheduler = dict(warmup_epochs=20)
train_cfg = dict(max_epochs=200)
