# CAE ViT-H/16, 800 epochs on ImageNet-1k. 694.72 M parameters. The authors have none of this size.
# Width, depth and heads are those of ViT-H (arXiv 2010.11929); patches of 16, so that their grid is the
# tokenizer's, where others have 14.
# For GPUs that have no room for it whole: tools/dist_train.sh configs/pretrain/cae_vith_800e.py 8 --fsdp
_base_ = './cae_vitb_800e.py'

model = dict(
    # As of ViT-L: layer scale 1e-5 reaches the encoder only.
    backbone=dict(arch='huge', layer_scale_init_value=1e-5),
    neck=dict(in_dims=1280))
