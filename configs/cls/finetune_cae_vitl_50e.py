# Fine-tune CAE ViT-L on ImageNet-1k, 50 epochs.
# The authors report top-1 86.2 after 1600 epochs of pre-training.
#   tools/dist_train.sh configs/cls/finetune_cae_vitl_50e.py 8 --pretrained CHECKPOINT
_base_ = './finetune_cae_vitb_100e.py'
pretrained = 'work_dirs/cae_vitl_1600e/epoch_1600.pth'

# Keys that change results.
model = dict(
    # Layer scales come from the checkpoint, whose encoder started at 1e-5.
    backbone=dict(arch='large', drop_path_rate=0.2, init_cfg=dict(checkpoint=pretrained)),
    head=dict(in_channels=1024))
# 4096 images per step = 8 GPUs x 64 x 8 accumulated (official: 32 GPUs x 64 x 2).
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    accumulative_counts=8,
    optimizer=dict(lr=2e-3),
    paramwise_cfg=dict(layer_decay_rate=0.75))
train_cfg = dict(max_epochs=50)
