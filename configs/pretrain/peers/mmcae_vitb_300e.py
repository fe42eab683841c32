# mmpretrain's CAE ViT-B, 300 epochs on ImageNet-1k, by mmpretrain's recipe with our data set, loop and
# hooks; the warm-up starts at 0 instead of 1e-4 of the peak. mmpretrain reports fine-tune 83.2.
#   tools/train.py configs/pretrain/peers/mmcae_vitb_300e.py --data-root DIR --cfg-options tokenizer=PATH
_base_ = ['../../_base_/datasets/pretrain_imagenet.py', '../../_base_/schedules/cae_pretrain.py',
          '../../_base_/default_runtime.py']

# Keys that change results.
model = dict(
    type='CAE',
    backbone=dict(
        type='CAEPretrainViT', arch='b', patch_size=16, layer_scale_init_value=0.1, bias='qv_bias'),
    neck=dict(
        type='CAENeck', embed_dims=768, num_heads=12, regressor_depth=4, decoder_depth=4, mlp_ratio=4,
        layer_scale_init_value=0.1),
    head=dict(type='CAEHead', loss=dict(type='CAELoss', lambd=2)),
    base_momentum=0.0,
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
    dict(type='RandomFlip', prob=0.5),
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
    paramwise_cfg=dict(bias_decay_mult=0.0, norm_decay_mult=0.0, flat_decay_mult=0.0))

# Keys that do not.
find_unused_parameters = True  # the teacher and DALL-E have no gradients
