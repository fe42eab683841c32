# mmpretrain's MAE ViT-B, 300 epochs on ImageNet-1k, by mmpretrain's recipe with our data set, loop and
# hooks; the warm-up starts at 0 instead of 1e-4 of the peak. mmpretrain reports fine-tune 83.1.
_base_ = ['../../_base_/datasets/pretrain_imagenet.py', '../../_base_/schedules/cae_pretrain.py',
          '../../_base_/default_runtime.py']

# Keys that change results.
model = dict(
    type='MAE',
    backbone=dict(type='MAEViT', arch='b', patch_size=16, mask_ratio=0.75),
    neck=dict(
        type='MAEPretrainDecoder', patch_size=16, in_chans=3, embed_dim=768, decoder_embed_dim=512,
        decoder_depth=8, decoder_num_heads=16, mlp_ratio=4.),
    head=dict(
        type='MAEPretrainHead', norm_pix=True, patch_size=16,
        loss=dict(type='PixelReconstructionLoss', criterion='L2')),
    init_cfg=[dict(type='Xavier', layer='Linear', distribution='uniform'),
              dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0)])
data_preprocessor = dict(type='SelfSupDataPreprocessor', to_rgb=True)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, crop_ratio_range=(0.2, 1.0), backend='pillow',
         interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
# 4096 images per step = 8 GPUs x 512.
train_dataloader = dict(batch_size=512, dataset=dict(dataset=dict(pipeline=pipeline)))
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    optimizer=dict(lr=1.5e-4 * 4096 / 256, betas=(0.9, 0.95)),
    clip_grad=None,
    paramwise_cfg=dict(custom_keys={
        'ln': dict(decay_mult=0.0), 'bias': dict(decay_mult=0.0), 'pos_embed': dict(decay_mult=0.),
        'mask_token': dict(decay_mult=0.), 'cls_token': dict(decay_mult=0.)}))
auto_scale_lr = dict(base_batch_size=4096)
param_scheduler = dict(warmup_epochs=40, min_lr=0.)
