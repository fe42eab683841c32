# A tokenizer in DALL-E's size, trained on ImageNet-1k (or one's own folder of large images).
_base_ = ['../_base_/default_runtime.py', '../_base_/datasets/pretrain_imagenet.py',
          '../_base_/models/dvae_imagenet.py', '../_base_/schedules/tokenizer.py']

model = {{_base_.dvae}}
# The crops that pre-training shows its tokenizer: 112 px, Lanczos.
pipeline = [
    dict(type='LoadRGBImage'),
    dict(type='TwoViewCrop', size=112, interpolation='lanczos', scale=(0.08, 1.0),
         backend='torch'),
    dict(type='PackViews'),
]
# 8 GPUs x 64 = 512 images, as DALL-E: 1281167 / 512 = 2502 steps per epoch, 50,000 in 20 epochs.
train_dataloader = dict(batch_size=64, dataset=dict(dataset=dict(pipeline=pipeline)))
train_cfg = dict(max_epochs=20)
# DALL-E: AdamW, 1e-4 to 1.25e-6 over 1.2 M of 3 M steps, betas (0.9, 0.999), decay 1e-4. 60 times
# fewer steps bear a larger rate.
optim_wrapper = dict(
    optimizer=dict(lr=3e-4, betas=(0.9, 0.999), weight_decay=1e-4))
param_scheduler = dict(min_lr=1.25e-6)
auto_scale_lr = dict(base_batch_size=512)
