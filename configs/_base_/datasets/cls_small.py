# A labelled folder of small images: train/CLASS/*, val/CLASS/*.
_base_ = './imagenet_cls.py'
data_root = 'data/images'

# --- what changes results -----------------------------------------------------------------------
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.6, 1.0), backend='pillow',
         interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
val_pipeline = [  # images that have the size already stay as they are
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=64, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=64),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=32, dataset=dict(dataset=dict(data_root=data_root, pipeline=train_pipeline)),
    num_workers=1)  # which changes only speed
val_dataloader = dict(
    dataset=dict(data_root=data_root, pipeline=val_pipeline), num_workers=0,
    persistent_workers=False)
val_evaluator = dict(topk=(1,))
test_dataloader, test_evaluator = val_dataloader, val_evaluator
