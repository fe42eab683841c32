# Linear segmentation on ADE20K: a 1x1 convolution on the last map of CAE ViT-B, whose weights are frozen.
# In the literature CAE is reported at mIoU 32.6, MAE at 27.1 and BEiT at 17.8 in this protocol. Neither
# the pre-training's length nor the optimisation is published; ours is the usual one of linear
# segmentation (AdamW at 1e-3, 40,000 steps of 16 images), with the data and the test of UperNet.
#   tools/dist_train.sh configs/seg/linear_cae_vitb_40k_ade20k.py 8 --pretrained CHECKPOINT
_base_ = './upernet_cae_vitb_160k_ade20k.py'

# Keys that change results.
model = dict(
    backbone=dict(
        out_indices=-1, final_norm=True, use_rel_pos_bias=False, drop_path_rate=0.,
        frozen_stages=12),  # all blocks, and with them everything
    neck=None,
    decode_head=dict(
        _delete_=True, type='FCNHead', in_channels=768, channels=768, num_convs=0, concat_input=False,
        dropout_ratio=0., num_classes={{_base_.num_classes}}, align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss')),
    auxiliary_head=None)
optim_wrapper = dict(
    optimizer=dict(lr=1e-3, weight_decay=1e-4),
    paramwise_cfg=dict(layer_decay_rate=1.))  # the constructor leaves the frozen encoder out
train_cfg = dict(max_iters=40000, val_interval=4000)

# Keys that do not.
default_hooks = dict(checkpoint=dict(interval=4000))
