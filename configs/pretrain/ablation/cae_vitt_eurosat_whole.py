# The small CAE with the alignment of latents and the decoder, as the ViT-B configs have them: 4.59 M
# parameters, 20 minutes on 2 CPU cores.
#   tools/train.py configs/pretrain/ablation/cae_vitt_eurosat_whole.py --data-root DIR
_base_ = '../cae_vitt_eurosat.py'
model = dict(head=dict(depth=2), align_weight=2.)
train_cfg = dict(max_epochs=10)
param_scheduler = dict(warmup_epochs=1)
default_hooks = dict(checkpoint=dict(interval=2), knn=dict(interval=2))
