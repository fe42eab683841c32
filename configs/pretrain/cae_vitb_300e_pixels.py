# CAE ViT-B that decodes normalised pixels, MAE's target: no tokenizer needed. For comparisons; the
# authors publish no such run.
_base_ = './cae_vitb_300e.py'

model = dict(
    head=dict(num_outputs=768),  # 3 * 16 * 16
    target_generator=dict(_delete_=True, type='PixelTarget', patch_size=16))
pipeline = [
    dict(type='LoadRGBImage'),
    dict(type='TwoViewCrop', size=224, scale=(0.08, 1.0), backend='torch'),
    dict(type='BlockMask', grid=14, num_masked=98, min_per_block=16),
    dict(type='PackViews'),
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=pipeline)))
