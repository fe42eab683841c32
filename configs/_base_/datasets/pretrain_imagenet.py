# ImageNet-1k (or any large images, at any depth below DIR/train) for pre-training; no labels are read.
# Images without such parts: --data-root DIR --cfg-options data_prefix=
data_root = 'data/imagenet'
data_prefix = 'train'

# --- what changes results -----------------------------------------------------------------------
pipeline = [
    dict(type='LoadRGBImage'),
    # The same crop for the encoder (224) and the tokenizer (112: its grid of 8 px is 14x14, too).
    # backend='torch' is the fast one; 'pillow' is bit-exact with the official code (see the class).
    dict(type='TwoViewCrop', size=224, target_size=112, scale=(0.08, 1.0), backend='torch'),
    dict(type='BlockMask', grid=14, num_masked=98, min_per_block=16),  # half of 14 x 14
    dict(type='PackViews'),
]
train_dataloader = dict(
    batch_size=256,  # per GPU; 2048 images per step = 8 GPUs x 256 (official: 32 GPUs x 64)
    drop_last=True,  # 1281167 images -> 625 steps per epoch
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ReproducibleDataset',
        dataset=dict(
            type='ImageFolder', data_root=data_root, data_prefix=data_prefix, with_label=False,
            pipeline=pipeline)),
    # --- what changes only speed ----------------------------------------------------------------
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
)
data_preprocessor = dict(
    type='CAEDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
)
