# A small CAE for photographs of about 100 px, such as the five kinds of tf_flowers at 96 px: 3.75 M
# parameters. It has neither alignment nor decoder, for the reason that cae_vitt_eurosat.py gives;
# ablation/cae_vitt_flowers_whole.py has both, and steps that take 1.45 times as long.
#   tools/train.py configs/tokenizer/dvae_eurosat.py --data-root DIR --work-dir work_dirs/dvae_flowers \
#       --cfg-options train_cfg.max_epochs=34
#   tools/train.py configs/pretrain/cae_vitt_flowers.py --data-root DIR
_base_ = './cae_vitt_eurosat.py'
data_root = 'data/flowers'
tokenizer = 'work_dirs/dvae_flowers/epoch_34.pth'

# Keys that change results.
model = dict(backbone=dict(img_size=96, patch_size=12))
pipeline = [
    dict(type='LoadRGBImage'),
    # The encoder sees 8 x 8 patches of 12 px, the tokenizer the same crop at 64 px: 8 x 8 codes.
    dict(type='TwoViewCrop', size=96, target_size=64, scale=(0.4, 1.0)),
    dict(type='BlockMask', grid=8, num_masked=32, min_per_block=4),  # half of 8 x 8
    dict(type='PackViews'),
]
train_dataloader = dict(dataset=dict(dataset=dict(data_root=data_root, pipeline=pipeline)))
# 2,934 images / 32 = 91 steps per epoch.
train_cfg = dict(max_epochs=85)
param_scheduler = dict(warmup_epochs=5)

# Keys that do not.
default_hooks = dict(checkpoint=dict(interval=10), knn=dict(data_root=data_root, interval=10))
