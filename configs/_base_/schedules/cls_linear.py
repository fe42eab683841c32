# The optimisation of linear probing, the same for all sizes.

# Keys that change results.
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    constructor='LayerDecayOptimWrapperConstructor',  # leaves the frozen encoder out
    # 6.4 = 0.1 * 16384 / 256 is for 16384 images per step.
    optimizer=dict(type='TimmLars', lr=6.4, momentum=0.9, weight_decay=0., trust_coeff=0.001))
auto_scale_lr = dict(base_batch_size=16384)
param_scheduler = dict(
    type='WarmupCosineLR', warmup_epochs=10, min_lr=0., endpoint=False, by_epoch=True,
    convert_to_iter_based=True)
train_cfg = dict(type='ResumableEpochLoop', max_epochs=90)
