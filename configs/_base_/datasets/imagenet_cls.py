# ImageNet-1k, or any labelled folder of large images: train/CLASS/*, val/CLASS/*. The classes are the
# sorted names of the folders. For another folder: --data-root DIR --cfg-options num_classes=N
data_root = 'data/imagenet'
num_classes = 1000

# --- what changes results -----------------------------------------------------------------------
# mmpretrain's preprocessor, and a loader of the name that its inferencer needs: files are read as BGR.
data_preprocessor = dict(
    type='ClsDataPreprocessor',
    num_classes=num_classes,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
val_pipeline = [
    dict(type='LoadImageFromFile'),
    # 256 = 224 / 0.875
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=128,  # per GPU; a leaf says how many make a step
    drop_last=True,
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ReproducibleDataset',
        dataset=dict(
            type='ImageFolder', data_root=data_root, data_prefix='train',
            pipeline=train_pipeline)),
    # --- what changes only speed ----------------------------------------------------------------
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
)
val_dataloader = dict(
    batch_size=128,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ImageFolder', data_root=data_root, data_prefix='val', pipeline=val_pipeline),
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
)
val_evaluator = dict(type='RecordedAccuracy', topk=(1, 5))
val_cfg = dict()
test_dataloader, test_evaluator, test_cfg = val_dataloader, val_evaluator, val_cfg
