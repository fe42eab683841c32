# Linear probing of CAE v2 ViT-B on ImageNet-1k, 90 epochs. The authors' scripts state no result.
#   tools/dist_train.sh configs/cls/linear_cae_v2_vitb_90e.py 8 --pretrained CHECKPOINT
_base_ = './linear_cae_vitb_90e.py'
pretrained = 'work_dirs/cae_v2_vitb_300e/epoch_300.pth'

# Keys that change results.
model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
# 8192 images per step = 8 GPUs x 1024, at 0.1 x 8192 / 256.
train_dataloader = dict(batch_size=1024)
optim_wrapper = dict(optimizer=dict(lr=3.2))
auto_scale_lr = dict(base_batch_size=8192)
