# The small CAE for flowers that decodes normalised pixels, MAE's target: no tokenizer needed.
_base_ = './cae_vitt_flowers_whole.py'
tokenizer = None
model = dict(
    head=dict(num_outputs=432),  # 3 * 12 * 12
    target_generator=dict(_delete_=True, type='PixelTarget', patch_size=12))
pipeline = [
    dict(type='LoadRGBImage'),
    dict(type='TwoViewCrop', size=96, scale=(0.4, 1.0)),
    dict(type='BlockMask', grid=8, num_masked=32, min_per_block=4),
    dict(type='PackViews'),
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=pipeline)))
