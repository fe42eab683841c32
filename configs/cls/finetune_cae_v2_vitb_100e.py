# Fine-tune CAE v2 ViT-B on ImageNet-1k, 100 epochs. The authors' scripts state no result.
#   tools/dist_train.sh configs/cls/finetune_cae_v2_vitb_100e.py 8 --pretrained CHECKPOINT
_base_ = './finetune_cae_vitb_100e.py'
pretrained = 'work_dirs/cae_v2_vitb_300e/epoch_300.pth'

# Keys that change results.
model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
# 1024 images per step = 8 GPUs x 128.
optim_wrapper = dict(
    accumulative_counts=1,
    optimizer=dict(lr=2e-4),
    paramwise_cfg=dict(layer_decay_rate=0.75))
auto_scale_lr = dict(base_batch_size=1024)
