"""Weights for timm's models, under all names: the features of the model they are of, or an error."""
import re

import pytest
import timm
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from safetensors.torch import save_file

from cae_mm.checkpoint.timm_weights import load_timm, note_pixels, to_timm
from cae_mm.models import TimmViT

transformers = pytest.importorskip('transformers')
SIZES = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=2, intermediate_size=192,
             image_size=64, patch_size=16)
SMALL = dict(embed_dim=48, depth=2, num_heads=2, img_size=64)
FAMILIES = {  # name in timm: class in transformers, and its further settings
    'vit_tiny_patch16_224': ('ViT', {}),
    'vit_base_patch16_224': ('ViTMAE', dict(mask_ratio=0.)),
    'beit_base_patch16_224': ('Beit', dict(use_relative_position_bias=True, use_mean_pooling=True)),
    'vit_small_patch14_dinov2': ('Dinov2', {}),
    'vit_giant_patch14_dinov2': ('Dinov2', dict(use_swiglu_ffn=True)),
    'vit_small_patch14_reg4_dinov2': ('Dinov2WithRegisters', {}),
    'vit_small_patch16_dinov3_qkvb': ('DINOv3ViT', dict(num_register_tokens=4)),
    'vit_small_plus_patch16_dinov3_qkvb': ('DINOv3ViT', dict(
        num_register_tokens=4, use_gated_mlp=True, hidden_act='silu')),
    'vit_base_patch16_clip_quickgelu_224': ('CLIPVision', {}),
    'vit_base_patch16_siglip_224': ('SiglipVision', {})}


def random_(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.mark.parametrize('form', ['file', 'module'])
@pytest.mark.parametrize('name', FAMILIES)
def test_from_transformers(name, form, tmp_path):
    """As its save_pretrained writes them, and as its modules are called."""
    kind, options = FAMILIES[name]
    theirs = random_(getattr(transformers, f'{kind}Model')(
        getattr(transformers, f'{kind}Config')(**SIZES | options)))
    if form == 'file':
        theirs.save_pretrained(tmp_path)
    else:
        state = theirs.state_dict() | {'classifier.weight': torch.ones(3, 48)}
        torch.save(state, tmp_path / 'a.pth')
    [path] = [path for path in tmp_path.iterdir() if path.suffix in ('.safetensors', '.pth')]
    ours = TimmViT(name, out_type='raw', patch_size=16, **SMALL)
    load_timm(ours.eval(), path)
    images = torch.randn(2, 3, 64, 64)
    extra = dict(noise=torch.arange(16.).expand(2, -1)) if kind == 'ViTMAE' else {}
    with torch.no_grad():
        found = theirs(images, **extra)
        tokens = found.last_hidden_state
        if kind == 'CLIPVision':
            tokens = getattr(theirs, 'vision_model', theirs).post_layernorm(tokens)
        torch.testing.assert_close(ours(images)[0], tokens, atol=1e-5, rtol=0)
        if kind in ('SiglipVision', 'Beit'):
            ours.out_type = 'pooled'
            torch.testing.assert_close(ours(images)[0], found.pooler_output, atol=1e-5, rtol=0)


def split(state, block):
    """BEiT and EVA have biases of queries and values alone."""
    q, _, v = state.pop(f'{block}.attn.qkv.bias').chunk(3)
    state[f'{block}.attn.q_bias'], state[f'{block}.attn.v_bias'] = q, v


def authors_dinov2(state):
    """No class row in timm's table: the authors add it, and have register tokens beside it."""
    row = torch.randn(1, 1, 48)
    state['register_tokens'] = state.pop('reg_token')
    state['pos_embed'] = torch.cat([row, state['pos_embed']], dim=1)
    state['cls_token'] = state['cls_token'] - row
    state['mask_token'] = torch.zeros(1, 48)


def authors_mae(state):
    state.update({'decoder_embed.weight': torch.ones(8, 48), 'decoder_pos_embed': torch.ones(1, 17, 8),
                  'mask_token': torch.zeros(1, 1, 8), 'decoder_blocks.0.norm1.weight': torch.ones(8)})


def authors_deit3(state):
    for name in [name for name in state if '.ls' in name]:
        state[re.sub(r'ls(\d)\.gamma', r'gamma_\1', name)] = state.pop(name)
    state.update({'head.weight': torch.ones(4, 48), 'head.bias': torch.ones(4)})


def authors_dinov3(state):
    state['storage_tokens'] = state.pop('reg_token')
    state['mask_token'] = torch.zeros(1, 48)
    for i in range(2):
        q, v = (state.pop(f'blocks.{i}.attn.{part}_bias') for part in 'qv')
        state[f'blocks.{i}.attn.qkv.bias'] = torch.cat([q, torch.zeros_like(q), v])
        for j in '12':
            state[f'blocks.{i}.ls{j}.gamma'] = state.pop(f'blocks.{i}.gamma_{j}')


def authors_beit(state):
    """Pre-trained: the norm of all tokens, and a head."""
    for kind in ('weight', 'bias'):
        state[f'norm.{kind}'] = state.pop(f'fc_norm.{kind}')
    state['lm_head.weight'] = torch.ones(9, 48)


def authors_sam(state):
    for name in [*state]:
        state[f'image_encoder.{name}'.replace('mlp.fc', 'mlp.lin')] = state.pop(name)
    state['mask_decoder.iou_token.weight'] = torch.ones(1, 8)


def authors_aimv2(state):
    for name in [*state]:
        value = state.pop(name)
        for ours, theirs in (('norm1', 'norm_1'), ('norm2', 'norm_2'), ('fc1_g', 'fc1'), ('fc1_x', 'fc3'),
                             ('patch_embed.', 'preprocessor.patchifier.'), ('blocks.', 'trunk.blocks.')):
            name = name.replace(ours, theirs)
        name = re.sub('^pos_embed', 'preprocessor.pos_embed', name)
        state[re.sub(r'^norm\.', 'trunk.post_trunk_norm.', name)] = value


def authors_clip(state, prefix='visual.'):
    """OpenAI's, whose text tower has names of its own."""
    for name in [*state]:
        value = state.pop(name)
        for ours, theirs in (
                ('patch_embed.proj', 'conv1'), ('norm_pre', 'ln_pre'),
                ('blocks.', 'transformer.resblocks.'), ('qkv.', 'in_proj_'),
                ('attn.proj', 'attn.out_proj'), ('mlp.fc1', 'mlp.c_fc'),
                ('mlp.fc2', 'mlp.c_proj'), ('norm1', 'ln_1'), ('norm2', 'ln_2')):
            name = name.replace(ours, theirs)
        name = re.sub(r'^norm\.', 'ln_post.', name)
        if name in ('cls_token', 'pos_embed'):
            name = dict(cls_token='class_embedding', pos_embed='positional_embedding')[name]
            value = value.flatten() if name == 'class_embedding' else value[0]
        state[prefix + name] = value
    state[f'{prefix}proj'] = torch.ones(48, 8)
    if prefix:
        state |= {'token_embedding.weight': torch.ones(9, 8),
                  'transformer.resblocks.0.ln_1.weight': torch.ones(8)}


def authors_pe(state):
    """Perception Encoder: CLIP's names, and an attention pooling."""
    pool = {name: state.pop(name) for name in [*state] if name.startswith('attn_pool.')}
    for kind in ('weight', 'bias'):
        joined = torch.cat([pool.pop(f'attn_pool.q.{kind}'), pool.pop(f'attn_pool.kv.{kind}')])
        pool[f'attn_pool.attn.in_proj_{kind}'] = joined
        pool[f'attn_pool.attn.out_proj.{kind}'] = pool.pop(f'attn_pool.proj.{kind}')
        pool[f'attn_pool.layernorm.{kind}'] = pool.pop(f'attn_pool.norm.{kind}')
        for ours, theirs in (('fc1', 'c_fc'), ('fc2', 'c_proj')):
            pool[f'attn_pool.mlp.{theirs}.{kind}'] = pool.pop(f'attn_pool.mlp.{ours}.{kind}')
    pool['attn_pool.probe'] = pool.pop('attn_pool.latent')
    authors_clip(state, prefix='')
    state |= pool


def open_clip(state):
    for name in [*state]:
        state[f'visual.trunk.{name}'] = state.pop(name)
    state |= {'logit_scale': torch.ones(()), 'text.transformer.resblocks.0.ln_1.weight': torch.ones(8)}


@pytest.mark.parametrize('name, authors, key', [
    ('samvit_base_patch16_224', authors_sam, None), ('aimv2_large_patch14_224', authors_aimv2, None),
    ('vit_base_patch16_clip_quickgelu_224', authors_clip, None),
    ('vit_pe_core_tiny_patch16_384', authors_pe, None), ('vit_base_patch16_siglip_224', open_clip, None),
    ('vit_base_patch16_224.mae', authors_mae, 'model'), ('deit3_small_patch16_224', authors_deit3, 'model'),
    ('vit_small_patch14_reg4_dinov2', authors_dinov2, None),
    ('beit_base_patch16_224', authors_beit, 'model'),
    ('vit_small_patch16_dinov3_qkvb', authors_dinov3, None), ('eva02_tiny_patch14_224', None, 'module')])
def test_from_the_authors(name, authors, key, tmp_path):
    theirs = random_(TimmViT(name, out_type='avg_featmap', patch_size=16, **SMALL))
    state = {name: value.clone() for name, value in theirs.vit.state_dict().items()}
    if authors:
        authors(state)
    torch.save({key: state} if key else state, tmp_path / 'a.pth')
    ours = TimmViT(name, out_type='avg_featmap', patch_size=16, **SMALL,
                   init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth')))
    ours.init_weights()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours.eval()(images)[0], theirs(images)[0], atol=1e-6, rtol=0)
    assert ours.trained_with['mean'] == [float(f'{255 * x:.6g}') for x in ours.mean]


def test_a_model_that_timm_does_not_resample_takes_other_sizes(tmp_path):
    sizes = {key: value for key, value in SMALL.items() if key != 'img_size'}
    sizes['global_attn_indexes'] = (1,)
    theirs = random_(timm.create_model('samvit_base_patch16', num_classes=0, **sizes))
    torch.save(theirs.state_dict(), tmp_path / 'a.pth')
    ours = TimmViT('samvit_base_patch16', img_size=96, out_type='featmap', **sizes)
    assert ours.grid_size == (6, 6)
    load_timm(ours.eval(), tmp_path / 'a.pth')
    images = torch.randn(1, 3, 96, 96)
    [expected] = theirs.forward_intermediates(images, indices=[1], intermediates_only=True)
    torch.testing.assert_close(ours(images)[0], expected, atol=1e-6, rtol=0)


def test_another_size_is_resampled_as_timm_does(tmp_path):
    sizes = SMALL | dict(img_size=70)
    theirs = random_(timm.create_model('vit_small_patch14_dinov2', num_classes=0, **sizes))
    save_file(theirs.state_dict(), tmp_path / 'a.safetensors')
    ours = TimmViT('vit_small_patch14_dinov2', patch_size=16, **SMALL)
    load_timm(ours, tmp_path / 'a.safetensors')
    theirs.set_input_size(img_size=(64, 64), patch_size=(16, 16))
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.vit.state_dict()[name], value, atol=1e-6, rtol=0, msg=name)


def test_a_table_for_all_blocks_becomes_one_of_each():
    vit = TimmViT('beit_base_patch16_224', **SMALL).vit
    state = {name: value for name, value in vit.state_dict().items() if 'relative_position' not in name}
    state['rel_pos_bias.relative_position_bias_table'] = table = torch.randn(7 * 7 + 3, 2)
    given = to_timm(state, vit)
    assert torch.equal(given['blocks.1.attn.relative_position_bias_table'], table)


def test_a_training_here_gives_its_backbone(tmp_path):
    trained = random_(TimmViT('vit_tiny_patch16_224', **SMALL))
    torch.save(dict(state_dict={f'backbone.{name}': value for name, value in trained.state_dict().items()}
                    | {'head.fc.weight': torch.ones(3, 48)}), tmp_path / 'epoch_1.pth')
    ours = TimmViT('vit_tiny_patch16_224', **SMALL)
    load_timm(ours, tmp_path / 'epoch_1.pth')
    for one, other in zip(ours.parameters(), trained.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize('change, problem', [
    (lambda state: state.pop('blocks.1.mlp.fc2.bias'), '1 missing: blocks.1.mlp.fc2.bias'),
    (lambda state: state.update({'blocks.2.norm1.weight': torch.ones(48)}), '1 unexpected: blocks.2.norm1'),
    (lambda state: state.update({'cls_token': torch.ones(1, 1, 16)}), '1 of another shape: cls_token'),
    (lambda state: state.pop('norm.bias'), '1 missing: norm.bias'),
    (lambda state: [state.pop(name) for name in [*state]] and state.update(a=torch.ones(1)), 'missing')])
def test_what_is_not_whole_is_refused(change, problem, tmp_path):
    ours = random_(TimmViT('vit_tiny_patch16_224', **SMALL))
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    state = {name: torch.zeros_like(value) for name, value in ours.vit.state_dict().items()}
    change(state)
    torch.save(state, tmp_path / 'a.pth')
    with pytest.raises(RuntimeError, match=rf'a\.pth does not hold vit_tiny_patch16_224.*{problem}'):
        load_timm(ours, tmp_path / 'a.pth')
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())


def test_pixels_of_weights_with_a_tag(tmp_path):
    """timm has weights of one model that were trained with pixels of several kinds."""
    mae = random_(TimmViT('vit_base_patch16_224.mae', **SMALL))
    assert mae.mean == (0.485, 0.456, 0.406)
    state = {name: value.clone() for name, value in mae.vit.state_dict().items()}
    torch.save(state, tmp_path / 'a.pth')
    load_timm(mae, tmp_path / 'a.pth')
    other = TimmViT('vit_base_patch16_224', **SMALL)
    assert other.mean == (0.5, 0.5, 0.5)
    assert 'vit_base_patch16_224.mae' in note_pixels(other, state)[0] and not note_pixels(mae, state)
    authors_mae(state)
    torch.save(state, tmp_path / 'a.pth')
    load_timm(other, tmp_path / 'a.pth')
    assert other.mean == mae.mean and other.trained_with['mean'] == mae.trained_with['mean']
    with pytest.raises(ValueError, match=r'tag .*; timm knows .*vit_base_patch16_224\.mae'):
        TimmViT('vit_base_patch16_224.nothing', **SMALL)


def test_biases_without_a_place_are_refused(tmp_path):
    theirs = random_(TimmViT('vit_small_patch16_dinov3_qkvb', **SMALL))
    state = {name: value.clone() for name, value in theirs.vit.state_dict().items()}
    authors_dinov3(state)
    torch.save(state, tmp_path / 'a.pth')
    ours = TimmViT('vit_small_patch16_dinov3', **SMALL)
    with pytest.raises(RuntimeError, match='qkv.bias is not zero, .* such as vit_base_patch16_dinov3_qkvb'):
        load_timm(ours, tmp_path / 'a.pth')
    for name in state:
        if name.endswith('qkv.bias'):
            state[name].zero_()
    torch.save(state, tmp_path / 'a.pth')
    load_timm(ours, tmp_path / 'a.pth')


def test_in_a_config():
    cfg = Config(dict(backbone=dict(type='TimmViT', name='vit_tiny_patch16_224', **SMALL)))
    assert isinstance(MODELS.build(cfg.backbone), TimmViT)
