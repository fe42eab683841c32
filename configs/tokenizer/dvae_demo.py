# A tokenizer for the demo's 64 px images: 8 x 8 codes out of 512, about a minute on 2 CPU cores.
_base_ = ['../_base_/default_runtime.py', '../_base_/datasets/pretrain_small.py',
          '../_base_/models/dvae_small.py', '../_base_/schedules/tokenizer.py']
data_root = 'demo_out/data/imagenet'

model = {{_base_.dvae}}
pipeline = [
    dict(type='LoadRGBImage'),
    # The crops of the demo's pre-training: digits have no mirror images.
    dict(type='TwoViewCrop', size=64, interpolation='lanczos', scale=(0.6, 1.0), flip_prob=0.),
    dict(type='PackViews'),
]
# 8,000 images: 125 steps per epoch, 625 in all.
train_dataloader = dict(
    batch_size=64, dataset=dict(dataset=dict(data_root=data_root, pipeline=pipeline)))
train_cfg = dict(max_epochs=5)
