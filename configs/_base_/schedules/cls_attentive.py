# The optimisation of attentive probing, the same for all sizes.

# Keys that change results.
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    constructor='LayerDecayOptimWrapperConstructor',  # leaves the frozen encoder out
    # 0.4 is for 8192 images per step.
    optimizer=dict(type='SGD', lr=0.4, momentum=0.9, nesterov=True, weight_decay=0.))
auto_scale_lr = dict(base_batch_size=8192)
param_scheduler = dict(
    type='WarmupCosineLR', warmup_epochs=10, min_lr=1e-6, by_epoch=True,
    convert_to_iter_based=True)
train_cfg = dict(type='ResumableEpochLoop', max_epochs=90)
