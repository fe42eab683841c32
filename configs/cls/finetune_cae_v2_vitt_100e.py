# Fine-tune CAE v2 ViT-Ti on ImageNet-1k, 100 epochs. The authors' scripts state no result.
#   tools/dist_train.sh configs/cls/finetune_cae_v2_vitt_100e.py 8 --pretrained CHECKPOINT
_base_ = './finetune_cae_v2_vitb_100e.py'
pretrained = 'work_dirs/cae_v2_vitt_300e/epoch_300.pth'

# Keys that change results.
model = dict(
    backbone=dict(arch='tiny', drop_path_rate=0., init_cfg=dict(checkpoint=pretrained)),
    # Mixup alone, and weaker, at label smoothing 0.
    head=dict(in_channels=192, loss=dict(label_smooth_val=0.)),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.2)]))
optim_wrapper = dict(
    optimizer=dict(lr=4e-3),
    paramwise_cfg=dict(layer_decay_rate=0.85))
