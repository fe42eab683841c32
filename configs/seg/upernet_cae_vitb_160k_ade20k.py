# UperNet on CAE ViT-B, ADE20K, 160,000 iterations, tested with sliding windows at one scale.
# The authors report mIoU 48.1 after 300 epochs of pre-training, 49.7 after 800, 50.3 after 1600, each
# with its own learning rate: 3e-4, 2e-4 and 1e-4 (4e-4 after 800: 49.6).
#   tools/dist_train.sh configs/seg/upernet_cae_vitb_160k_ade20k.py 8 --pretrained CHECKPOINT \
#       --cfg-options optim_wrapper.optimizer.lr=1e-4
_base_ = [
    '../_base_/datasets/ade20k.py',
    '../_base_/models/upernet_cae_vitb.py',
    '../_base_/schedules/seg_160k.py',
]
pretrained = 'work_dirs/cae_vitb_800e/epoch_800.pth'

# Keys that change results.
model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))
# 16 images per step = 8 GPUs x 2; 2e-4 is for 800 epochs of pre-training.
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
