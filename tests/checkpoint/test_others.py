"""Other vision transformers are refused with what reads them."""
import pytest
import timm
import torch

from cae_mm.checkpoint.convert import convert
from cae_mm.checkpoint.loader import load_backbone
from cae_mm.models import CAEViT

PLAIN = ('cls_token', 'pos_embed', 'patch_embed.proj.weight', 'patch_embed.proj.bias', *(
    f'blocks.0.{name}.{leaf}' for name in ('norm1', 'norm2', 'attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2')
    for leaf in ('weight', 'bias')), 'norm.weight', 'norm.bias')
CLIP = ('embeddings.class_embedding', 'embeddings.patch_embedding.weight',
        'encoder.layers.0.layer_norm1.weight')
# Names in the files of the authors, of timm and of transformers.
FILES = {
    'DINOv2': [(*PLAIN, 'register_tokens', 'mask_token', 'blocks.0.ls1.gamma'), (*PLAIN, 'reg_token'),
               ('embeddings.register_tokens', 'encoder.layer.0.attention.attention.query.weight')],
    'DINOv3': [(*PLAIN, 'storage_tokens', 'rope_embed.periods'), (*PLAIN, 'blocks.0.attn.qkv.bias_mask'),
               ('embeddings.patch_embeddings.weight', 'layer.0.mlp.up_proj.weight')],
    'EVA-02': [('cls_token', 'blocks.0.attn.q_proj.weight', 'blocks.0.mlp.w1.weight', 'rope.freqs_cos'),
               ('cls_token', 'blocks.0.attn.q_proj.weight', 'blocks.0.mlp.fc1_g.weight')],
    'SAM': [[f'image_encoder.{name}' for name in (*PLAIN[1:], 'blocks.0.attn.rel_pos_h', 'neck.0.weight')],
            ('vision_encoder.pos_embed', 'vision_encoder.layers.0.attn.rel_pos_h')],
    'SigLIP': [(*PLAIN[1:], 'attn_pool.latent', 'attn_pool.kv.weight'),
               [f'vision_model.{name}' for name in (*CLIP[1:], 'head.probe')]],
    'CLIP': [('visual.class_embedding', 'visual.transformer.resblocks.0.ln_1.weight'),
             (*PLAIN, 'norm_pre.weight'),
             [f'vision_model.{name}' for name in (*CLIP, 'pre_layrnorm.weight')]]}
CASES = [(model, names) for model, files in FILES.items() for names in files]


@pytest.mark.parametrize('model, names', CASES, ids=lambda value: value if isinstance(value, str) else '')
def test_refused(model, names, tmp_path):
    state, way_out = {name: torch.zeros(1) for name in names}, rf'{model}.* TimmViT .*--backbone timm:NAME'
    with pytest.raises(ValueError, match=way_out):
        convert(state)
    torch.save(state, tmp_path / 'a.pth')
    backbone = CAEViT(dict(embed_dims=24, num_layers=1, num_heads=2), img_size=16, patch_size=8)
    with pytest.raises((ValueError, RuntimeError), match=way_out):
        load_backbone(backbone, tmp_path / 'a.pth')


@pytest.mark.parametrize('names', [(*PLAIN, 'blocks.0.attn.heat'), ('stem.weight', 'stages.0.weight')])
def test_unknown_ones_too(names):
    with pytest.raises(ValueError, match='TimmViT .*--backbone timm:NAME'):
        convert({name: torch.zeros(1) for name in names})


@pytest.mark.parametrize('name, whose', [
    ('vit_small_patch14_reg4_dinov2', 'DINOv2'), ('vit_small_patch16_dinov3', 'DINOv3'),
    ('vit_base_patch16_siglip_224', 'SigLIP'), ('vit_base_patch16_siglip_gap_224', 'siglip'),
    ('samvit_base_patch16', 'SAM'), ('vit_base_patch16_clip_224', 'CLIP'),
    ('eva02_tiny_patch14_224', 'EVA-02'), ('eva02_base_patch16_clip_224', 'EVA-02'),
    ('vit_giant_patch14_dinov2', "DINOv2's giant"), ('deit3_small_patch16_224', 'deit3')])
def test_models_of_timm(name, whose):
    model = timm.create_model(name, embed_dim=24, depth=1, num_heads=2)
    with pytest.raises(ValueError, match=f'(?s)(?=.*{whose})(?=.*TimmViT .*--backbone timm:NAME)'):
        convert(model.state_dict())
