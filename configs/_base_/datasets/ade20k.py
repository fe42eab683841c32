# ADE20K, or any pictures with label maps in its layout: images/{training,validation}/*.jpg and
# annotations/{training,validation}/*.png, where 0 is void and the classes begin at 1. For your own, with
# windows of 256 pixels in pictures of their own size, 480 x 360:
#   --data-root DIR --cfg-options classes=DIR/classes.txt crop_size=[256,256] test_scale=[480,360]
# which the tools put wherever these are used below and in the model.
data_root = 'data/ade/ADEChallengeData2016'
num_classes = 150
classes = None  # ADE20K's own

# Keys that change results.
crop_size = (512, 512)
test_scale = (2048, 512)  # longest and shorter side at most; in training 0.5 to 2 times that
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),  # 0 becomes 255, which is ignored, and 1..150 become 0..149
    dict(type='RandomResize', scale=test_scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=test_scale, keep_ratio=True),
    dict(type='LoadAnnotations'),  # after Resize: the truth keeps its size
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=2,  # per GPU; a leaf says how many make a step
    sampler=dict(type='mmpretrain.EndlessSampler'),
    dataset=dict(
        type='mmpretrain.ReproducibleDataset',
        dataset=dict(
            type='ADE20KDataset', data_root=data_root,
            data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
            pipeline=train_pipeline)),
    # Keys that do not.
    num_workers=4,
    persistent_workers=True,
    pin_memory=True)
val_dataloader = dict(
    batch_size=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ADE20KDataset', data_root=data_root,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline),
    num_workers=4,
    persistent_workers=True,
    pin_memory=True)
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
val_cfg = dict()
test_dataloader, test_evaluator, test_cfg = val_dataloader, val_evaluator, val_cfg

# Multi-scale + flip, for the configs that end in _ms: test_scale times each ratio, mirrored and not.
tta_model = dict(type='SegTTAModel')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='RandomResize', scale=test_scale, ratio_range=(ratio, ratio), keep_ratio=True)
         for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)],
        [dict(type='RandomFlip', prob=0.), dict(type='RandomFlip', prob=1.)],
        [dict(type='LoadAnnotations')],
        [dict(type='PackSegInputs')]]),
]
