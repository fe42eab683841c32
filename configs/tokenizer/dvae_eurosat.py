# A tokenizer for 64 px images such as EuroSAT's: 8 x 8 codes out of 512, minutes on 2 CPU cores.
#   tools/train.py configs/tokenizer/dvae_eurosat.py --data-root DIR
_base_ = ['../_base_/default_runtime.py', '../_base_/datasets/pretrain_small.py',
          '../_base_/models/dvae_small.py', '../_base_/schedules/tokenizer.py']

model = {{_base_.dvae}}
data_root = 'data/eurosat'
# Crops down to smaller ones than those of pre-training.
pipeline = [
    dict(type='LoadRGBImage'),
    dict(type='TwoViewCrop', size=64, interpolation='lanczos', scale=(0.2, 1.0)),
    dict(type='PackViews'),
]
# 10,000 images: 156 steps per epoch, 1560 in all.
train_dataloader = dict(batch_size=64, dataset=dict(dataset=dict(
    data_root=data_root, pipeline=pipeline)))
train_cfg = dict(max_epochs=10)
