# A tokenizer for street scenes such as CamVid's at 480 x 360: minutes on 2 CPU cores. The labels are
# not read.
#   tools/train.py configs/tokenizer/dvae_camvid.py --data-root DIR
_base_ = './dvae_eurosat.py'
data_root = 'data/camvid'  # ADE20K's layout
data_prefix = 'images/training'

# Crops of 80 to 260 px become 64 px: a code stands for 10 to 32 px of the photograph.
pipeline = [
    dict(type='LoadRGBImage'),
    dict(type='TwoViewCrop', size=64, interpolation='lanczos', scale=(0.04, 0.4)),
    dict(type='PackViews'),
]
train_dataloader = dict(dataset=dict(dataset=dict(
    data_root=data_root, data_prefix=data_prefix, pipeline=pipeline)))
# 367 images: 5 steps per epoch, 1500 in all.
train_cfg = dict(max_epochs=300)
default_hooks = dict(checkpoint=dict(interval=50))
