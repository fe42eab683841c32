# CAE v2 ViT-L, 300 epochs on ImageNet-1k, by the ViT-B recipe: the authors publish no script for it.
#   tools/dist_train.sh configs/pretrain/cae_v2_vitl_300e.py 8 --cfg-options tokenizer=CLIP_CHECKPOINT
_base_ = './cae_v2_vitb_300e.py'

# Keys that change results.
model = dict(
    backbone=dict(arch='large', layer_scale_init_value=1e-5),
    neck=dict(embed_dims=1024, num_heads=16),
    head=dict(embed_dims=1024))
