# CAE with a ViT-B encoder, as the authors pre-trained it. Other sizes change a few of these keys.

# Keys that change results.
block = dict(drop_path_rate=0.1, layer_scale_init_value=0.1)
decoder = dict(grid_size=14, embed_dims=768, num_heads=12, depth=4, **block)
model = dict(
    type='ContextAutoencoder',
    backbone=dict(type='CAEViT', arch='base', img_size=224, patch_size=16, **block),
    neck=dict(type='LatentContextualRegressor', **decoder),
    head=dict(type='CAEDecoder', num_outputs=8192, **decoder),
    target_generator=dict(
        type='DALLETokenizer',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://mmassets.onedl.ai/mmselfsup/1.x/target_generator_ckpt/'
            'dalle_encoder.pth')),
    align_weight=2.0)
del block, decoder

# Keys that change only speed.
compile_model = 'auto'  # on GPUs; True: everywhere
