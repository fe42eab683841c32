# UperNet on CAE ViT-S, ADE20K, 160,000 iterations, by the ViT-B recipe for 300 epochs of pre-training:
# the authors publish neither a recipe nor a result for it.
#   tools/dist_train.sh configs/seg/upernet_cae_vits_160k_ade20k.py 8 --pretrained CHECKPOINT
_base_ = './upernet_cae_vitb_160k_ade20k.py'
pretrained = 'work_dirs/cae_vits_300e/epoch_300.pth'

# Keys that change results.
model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint=pretrained)),
    neck=dict(in_channels=384),
    decode_head=dict(in_channels=[384] * 4, channels=384),
    auxiliary_head=dict(in_channels=384))
optim_wrapper = dict(optimizer=dict(lr=3e-4))
