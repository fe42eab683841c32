# UperNet on CAE ViT-L, ADE20K, 160,000 iterations, tested with sliding windows at one scale.
# The authors report mIoU 54.9 after 1600 epochs of pre-training (the paper's list of results: 54.7).
#   tools/dist_train.sh configs/seg/upernet_cae_vitl_160k_ade20k.py 8 --pretrained CHECKPOINT
_base_ = './upernet_cae_vitb_160k_ade20k.py'
pretrained = 'work_dirs/cae_vitl_1600e/epoch_1600.pth'

# Keys that change results.
model = dict(
    # Layer scales come from the checkpoint, whose encoder started at 1e-5.
    backbone=dict(
        arch='large', out_indices=(7, 11, 15, 23), drop_path_rate=0.15, layer_scale_init_value=1e-5,
        init_cfg=dict(checkpoint=pretrained)),
    neck=dict(in_channels=1024),
    decode_head=dict(in_channels=[1024] * 4, channels=1024),
    auxiliary_head=dict(in_channels=1024))
optim_wrapper = dict(optimizer=dict(lr=4e-5), paramwise_cfg=dict(layer_decay_rate=0.95))
