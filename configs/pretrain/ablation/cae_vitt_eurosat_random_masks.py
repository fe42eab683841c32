# The small CAE with single patches masked instead of blocks, as many of them.
_base_ = './cae_vitt_eurosat_whole.py'
pipeline = [
    dict(type='LoadRGBImage'),
    dict(type='TwoViewCrop', size=64, target_size=64, scale=(0.6, 1.0)),
    dict(type='RandomMask', grid=8, num_masked=32),
    dict(type='PackViews'),
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=pipeline)))
