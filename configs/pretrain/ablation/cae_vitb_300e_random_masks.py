# CAE with single patches masked instead of blocks, as many of them.
_base_ = '../cae_vitb_300e.py'
pipeline = [
    dict(type='LoadRGBImage'),
    dict(type='TwoViewCrop', size=224, target_size=112, scale=(0.08, 1.0), backend='torch'),
    dict(type='RandomMask', grid=14, num_masked=98),
    dict(type='PackViews'),
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=pipeline)))
