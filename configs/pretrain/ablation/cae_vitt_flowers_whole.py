# The small CAE for flowers with the alignment of latents and the decoder, as the ViT-B configs have them:
# 4.64 M parameters, 35 minutes on 2 CPU cores.
#   tools/train.py configs/pretrain/ablation/cae_vitt_flowers_whole.py --data-root DIR
_base_ = '../cae_vitt_flowers.py'
model = dict(head=dict(depth=2), align_weight=2.)
train_cfg = dict(max_epochs=60)
