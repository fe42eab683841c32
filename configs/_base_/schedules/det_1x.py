# Twelve epochs of detection with ViT-B, logged, saved and seeded as all else, in mmdet's scope.
_base_ = '../default_runtime.py'
default_scope = 'mmdet'

# Keys that change results.
optim_wrapper = dict(
    # bfloat16, where the authors have float16 (apex O1), but not for what boxes are computed with: mmdet
    # converts boxes to the type of the maps, and mmcv's operators have no bfloat16.
    type='mmpretrain.AutocastOptimWrapper', float32_outputs=('neck', 'rpn_head'),
    constructor='mmpretrain.LayerDecayOptimWrapperConstructor',
    # 3e-4 is for 32 images per step, and of the neck and the heads; no gradient clipping.
    optimizer=dict(type='AdamW', lr=3e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    paramwise_cfg=dict(layer_decay_rate=0.75))
auto_scale_lr = dict(base_batch_size=32)
param_scheduler = [
    # The whole rate from iteration 500 on: LinearLR reaches it one step before its end.
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=501),
    # 9 and 11 are the authors'; a usual 1x schedule has 8 and 11.
    dict(type='MultiStepLR', milestones=[9, 11], gamma=0.1, by_epoch=True),
]
train_cfg = dict(type='mmpretrain.ResumableEpochLoop', max_epochs=12)

# Keys that do not.
env_cfg = dict(cudnn_benchmark=False)  # images of many sizes: it would measure each of them
default_hooks = dict(
    checkpoint=dict(interval=1),
    annotation_check=dict(type='mmpretrain.AnnotationCheckHook'),
    visualization=dict(type='DetVisualizationHook'))  # draws with draw=True, and tools/test.py of mmdet
visualizer = dict(type='DetLocalVisualizer')
