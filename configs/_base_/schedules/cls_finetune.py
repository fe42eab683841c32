# The optimisation of fine-tuning ViT-B. A leaf states its epochs, rate, layer decay and accumulation.

# Keys that change results.
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    constructor='LayerDecayOptimWrapperConstructor',
    # 8e-3 is for 4096 images per step, and of the last layers; no gradient clipping.
    optimizer=dict(type='AdamW', lr=8e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    # The class token decays in pre-training, not here.
    paramwise_cfg=dict(layer_decay_rate=0.65, decay_cls_token=False))
auto_scale_lr = dict(base_batch_size=4096)
param_scheduler = dict(
    type='WarmupCosineLR', warmup_epochs=5, min_lr=1e-6, by_epoch=True, convert_to_iter_based=True)
train_cfg = dict(type='ResumableEpochLoop', max_epochs=100)
