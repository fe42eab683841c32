# CAE ViT-g/16, 800 epochs on ImageNet-1k. 1017.57 M parameters. The authors have none of this size.
# Width, depth and heads are those of ViT-g (arXiv 2106.04560), with patches of 16 as of ViT-H, and MLPs of
# 4 x 1408 channels as in all of ours, where that one has 6144.
# For GPUs that have no room for it whole: tools/dist_train.sh configs/pretrain/cae_vitg_800e.py 8 --fsdp
_base_ = './cae_vith_800e.py'

model = dict(backbone=dict(arch='giant'), neck=dict(in_dims=1408))
