# mmpretrain's BEiT ViT-B, 300 epochs on ImageNet-1k, by mmpretrain's recipe with our data set, loop and
# hooks; the warm-up starts at 0 instead of 1e-4 of the peak. mmpretrain reports fine-tune 83.1.
#   tools/train.py configs/pretrain/peers/beit_vitb_300e.py --data-root DIR --cfg-options tokenizer=PATH
_base_ = ['../../_base_/datasets/pretrain_imagenet.py', '../../_base_/schedules/cae_pretrain.py',
          '../../_base_/default_runtime.py']

# Keys that change results.
model = dict(
    type='BEiT',
    backbone=dict(
        type='BEiTPretrainViT', arch='base', patch_size=16, drop_path_rate=0.1, final_norm=True,
        out_type='raw', layer_scale_init_value=0.1,
        init_cfg=[dict(type='TruncNormal', std=0.02, layer='Linear'),
                  dict(type='TruncNormal', std=0.02, layer='Conv2d'),
                  dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0)]),
    neck=None,
    head=dict(type='BEiTV1Head', embed_dims=768, num_embed=8192, loss=dict(type='CrossEntropyLoss')),
    target_generator=dict(
        type='DALL-E',
        # Not 'Pretrained', which only warns of what a file lacks.
        init_cfg=dict(
            type='PretrainedTokenizer',
            checkpoint='https://mmassets.onedl.ai/mmselfsup/1.x/target_generator_ckpt/'
            'dalle_encoder.pth')))
data_preprocessor = dict(
    type='TwoNormDataPreprocessor', second_mean=[-31.875] * 3, second_std=[318.75] * 3, to_rgb=True)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='RandomResizedCropAndInterpolationWithTwoPic', size=224, second_size=112,
         interpolation='bicubic', second_interpolation='lanczos', scale=(0.08, 1.0)),
    dict(type='BEiTMaskGenerator', input_size=(14, 14), num_masking_patches=75, max_num_patches=None,
         min_num_patches=16),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=pipeline)))
# AdamW at 1.5e-3 for 2048 images, clipped at 3, as our base has it too.
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    paramwise_cfg=dict(custom_keys={
        '.ln': dict(decay_mult=0.0), '.bias': dict(decay_mult=0.0), 'q_bias': dict(decay_mult=0.0),
        'v_bias': dict(decay_mult=0.0), '.cls_token': dict(decay_mult=0.0),
        '.pos_embed': dict(decay_mult=0.0), '.gamma': dict(decay_mult=0.0)}))

# Keys that do not.
find_unused_parameters = True  # DALL-E's have no gradients
