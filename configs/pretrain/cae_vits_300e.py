# CAE ViT-S, 300 epochs on ImageNet-1k, by the ViT-B recipe: the authors publish the model (12 heads,
# 84.92 M parameters with the decoder 768 wide) but no script and no result for it.
_base_ = './cae_vitb_300e.py'

model = dict(
    backbone=dict(arch='small'),
    neck=dict(in_dims=384))  # the regressor and the decoder stay 768 wide: a projection joins them
