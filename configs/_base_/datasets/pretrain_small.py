# Small images (64 px and the like), at any depth below DIR/train; no labels are read.
# Images without such parts: --data-root DIR --cfg-options data_prefix=
data_root = 'data/images'
data_prefix = 'train'

# --- what changes results -----------------------------------------------------------------------
pipeline = [
    dict(type='LoadRGBImage'),
    # Patches of 8 px and a tokenizer of stride 8: both views have 64 px and a grid of 8 x 8.
    # Small objects do not survive crops of 8 % of a 64 px image: 20 % at least.
    dict(type='TwoViewCrop', size=64, target_size=64, scale=(0.2, 1.0)),
    dict(type='BlockMask', grid=8, num_masked=32, min_per_block=4),  # half of 8 x 8
    dict(type='PackViews'),
]
train_dataloader = dict(
    batch_size=128,
    drop_last=True,
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ReproducibleDataset',
        dataset=dict(
            type='ImageFolder', data_root=data_root, data_prefix=data_prefix, with_label=False,
            pipeline=pipeline)),
    # --- what changes only speed ----------------------------------------------------------------
    num_workers=1,
    persistent_workers=True,
    pin_memory=True,
)
data_preprocessor = dict(
    type='CAEDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
)
