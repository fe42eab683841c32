# The optimisation that all tokenizers share. A leaf states its epochs and its learning rate.

# Keys that change results.
optim_wrapper = dict(
    type='mmpretrain.AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0),
    clip_grad=dict(max_norm=1.0))
param_scheduler = dict(
    type='mmpretrain.WarmupCosineLR', warmup_epochs=1, min_lr=1e-5,
    by_epoch=True, convert_to_iter_based=True)
train_cfg = dict(type='mmpretrain.ResumableEpochLoop', max_epochs=10)
