# A small CAE on the demo's 64 px images: 2 M parameters, minutes on 2 CPU cores.
#   tools/train.py configs/pretrain/cae_vitt_demo.py --cfg-options tokenizer=PATH
_base_ = ['../_base_/default_runtime.py', '../_base_/datasets/pretrain_small.py',
          '../_base_/schedules/cae_pretrain.py']
data_root = 'demo_out/data/imagenet/train'
tokenizer = 'demo_out/tokenizer/last.pth'

# --- what changes results -----------------------------------------------------------------------
decoder = dict(grid_size=8, embed_dims=128, num_heads=4, depth=2)
model = dict(
    type='ContextAutoencoder',
    data_preprocessor=dict(type='CAEDataPreprocessor'),
    backbone=dict(
        type='CAEViT', arch=dict(embed_dims=128, num_layers=6, num_heads=4), img_size=64,
        patch_size=8),
    neck=dict(type='LatentContextualRegressor', **decoder),
    head=dict(type='CAEDecoder', num_outputs=512, **decoder),
    target_generator={{_base_.dvae}},
    align_weight=2.0)
del decoder
