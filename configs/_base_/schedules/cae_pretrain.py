# The optimisation that all CAE pre-training shares. A leaf states its epochs and its warm-up.

# Keys that change results.
optim_wrapper = dict(
    type='mmpretrain.AutocastOptimWrapper',
    constructor='mmpretrain.LayerDecayOptimWrapperConstructor',
    # 1.5e-3 is for 2048 images, e.g. 32 GPUs x 64; --auto-scale-lr adapts it to another batch size.
    optimizer=dict(type='AdamW', lr=1.5e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    clip_grad=dict(max_norm=3.0))
auto_scale_lr = dict(base_batch_size=2048)
param_scheduler = dict(
    type='mmpretrain.WarmupCosineLR', warmup_epochs=10, min_lr=1e-5,
    by_epoch=True, convert_to_iter_based=True)
train_cfg = dict(type='mmpretrain.ResumableEpochLoop', max_epochs=300)
