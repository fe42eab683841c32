# COCO 2017, or data in its layout: {train,val}2017/*.jpg, annotations/instances_{train,val}2017.json.
# For other data: --data-root DIR --cfg-options classes=FILE, and for small images train_scales,
# crop_scales, crop_size and test_scale, which the tools put wherever they are used below.
data_root = 'data/coco'
classes = None  # those of COCO

# Keys that change results.
# The image is made as large as fits into a rectangle that is drawn from these, and may stand or lie.
train_scales = [(1333, short) for short in range(480, 801, 32)]
crop_scales = [(1333, short) for short in (400, 500, 600)]
crop_size = (384, 600)
test_scale = (1333, 800)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    # One of two policies, each for half of the images: the whole image, or a part of it, of which each
    # side is between crop_size[0] and crop_size[1] pixels, resized like a whole one.
    dict(type='RandomChoice', transforms=[
        [
            dict(type='RandomChoiceResize', scales=train_scales, keep_ratio=True),
        ],
        [
            dict(type='RandomChoiceResize', scales=crop_scales, keep_ratio=True),
            dict(type='RandomCrop', crop_type='absolute_range', crop_size=crop_size,
                 allow_negative_crop=True),
            dict(type='RandomChoiceResize', scales=train_scales, keep_ratio=True),
        ],
    ]),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=test_scale, keep_ratio=True),
    # After the resizing: boxes and masks of the truth stay those of the file.
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs',
         meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=4,  # per GPU: 32 images per step = 8 GPUs x 4 (official: 16 GPUs x 2)
    sampler=dict(type='mmpretrain.EpochSampler', round_up=True),
    # Images that stand and images that lie are in different batches, which are padded less then.
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type='mmpretrain.ReproducibleDataset',
        dataset=dict(
            type='CocoDataset', data_root=data_root,
            ann_file='annotations/instances_train2017.json', data_prefix=dict(img='train2017/'),
            pipeline=train_pipeline, filter_cfg=dict(filter_empty_gt=True, min_size=32))),
    # Keys that do not.
    num_workers=4,
    persistent_workers=True,
    pin_memory=True)
val_dataloader = dict(
    batch_size=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset', data_root=data_root, ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'), pipeline=test_pipeline, test_mode=True),
    num_workers=4,
    persistent_workers=True,
    pin_memory=True)
val_evaluator = dict(
    type='CocoMetric', metric=['bbox', 'segm'],
    ann_file=data_root + '/annotations/instances_val2017.json')
val_cfg = dict()
test_dataloader, test_evaluator, test_cfg = val_dataloader, val_evaluator, val_cfg
