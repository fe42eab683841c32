# The optimisation of UperNet on ADE20K, and what a run counted in iterations and mmseg need.
_base_ = '../default_runtime.py'
default_scope = 'mmseg'

# Keys that change results.
optim_wrapper = dict(
    type='mmpretrain.AutocastOptimWrapper',  # the official code: float16 by apex
    constructor='mmpretrain.LayerDecayOptimWrapperConstructor',
    # For 16 images per step and 800 epochs of pre-training; no gradient clipping.
    optimizer=dict(type='AdamW', lr=2e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    paramwise_cfg=dict(layer_decay_rate=0.65))
auto_scale_lr = dict(base_batch_size=16)
# The product of both from the first step on, as in the official code. The second one ends with the
# training, whatever its length, and so reaches 0 in its last step instead of one later.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, end=1501, by_epoch=False),  # 1 at step 1500
    dict(type='PolyLR', power=1.0, eta_min=0., by_epoch=False),
]
train_cfg = dict(type='mmpretrain.ResumableIterLoop', max_iters=160000, val_interval=16000)

# Keys that do not.
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=16000, max_keep_ckpts=2),
    annotation_check=dict(type='mmpretrain.AnnotationCheckHook'),
    visualization=dict(type='SegVisualizationHook'))
log_processor = dict(by_epoch=False)
visualizer = dict(type='SegLocalVisualizer')
