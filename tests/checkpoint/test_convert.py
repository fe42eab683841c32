"""Translations are exact, reversible, understood by the other libraries, or refused by name."""
import re
from math import isqrt

import numpy as np
import pytest
import timm
import torch

from cae_mm.checkpoint.convert import convert
from cae_mm.checkpoint.layouts import LAYOUTS
from cae_mm.checkpoint.names import detect_origin, rename

from .conftest import DIMS, HEADS, KINDS, PATCH, SIZE

# What has no place elsewhere, and a name of it that the refusal gives.
REFUSED = {
    **{('timm', kind): name for kind, name in [
        ('pre-training', 'neck.mask_token'), ('projected', 'neck.mask_token'),
        ('linear probe', 'neck.bn.running_mean'), ('attentive probe', 'head.query_token'),
        ('relative', 'backbone.blocks.0.attn.rel_pos')]},
    ('mmpretrain', 'projected'): 'neck.pos_embed differs',
    ('mmpretrain', 'attentive probe'): 'head.query_token',
}
REFUSED |= {('mmpretrain-vit', kind): name for (target, kind), name in REFUSED.items()
            if target == 'timm' and kind != 'linear probe'}
REFUSED |= {('transformers', kind): name for (target, kind), name in REFUSED.items()
            if target == 'timm' and kind != 'relative'}


def same(left, right):
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]), name


def change(state, drop=(), **add):
    return {k: v for k, v in state.items() if not any(re.search(d, k) for d in drop)} | {
        k.replace('__', '.'): v for k, v in add.items()}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('target', LAYOUTS)
def test_there_and_back(state, target, kind):
    ours = state(kind)
    if (target, kind) in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[target, kind]):
            convert(ours, target=target)
        theirs = None
    else:
        theirs = convert(ours, target=target)
        assert detect_origin(theirs) == target
        same(convert(theirs), ours)
    # The encoder has a place everywhere, as long as its blocks compute the same.
    encoder = {name: value for name, value in ours.items() if name.startswith('backbone.')}
    if kind != 'relative' or target in ('cae_mm', 'official', 'mmpretrain', 'transformers'):
        same(convert(convert(ours, target=target, export='encoder')), encoder)
        if theirs is not None:
            same(convert(theirs, export='encoder'), encoder)


def test_bare_names_of_our_encoder(make, state):
    same(convert(make('encoder').state_dict()), state('encoder'))


@pytest.mark.parametrize('pooling, kwargs', [('token', {}), ('mean', dict(global_pool='avg'))])
def test_timm_computes_the_same(make, pooling, kwargs):
    ours = make('classifier', backbone=dict(KINDS['encoder'], out_type={
        'token': 'cls_token', 'mean': 'avg_featmap'}[pooling]))
    theirs = timm.create_model(
        'vit_base_patch16_224', img_size=SIZE, patch_size=PATCH, embed_dim=DIMS, depth=2,
        num_heads=HEADS, num_classes=5, init_values=1., **kwargs).eval()
    theirs.load_state_dict(convert(ours.state_dict(), target='timm', pooling=pooling))
    images = torch.randn(2, 3, SIZE, SIZE)
    torch.testing.assert_close(theirs(images), ours(images), atol=1e-5, rtol=0)
    assert not theirs.blocks[1].attn.qkv.bias[DIMS:2 * DIMS].any()  # of the keys
    same(convert(theirs.state_dict()), ours.state_dict())
    # What timm's head reads stays what it reads elsewhere.
    norm = {'token': 'backbone.ln1.weight', 'mean': 'backbone.ln2.weight'}[pooling]
    assert norm in convert(theirs.state_dict(), target='mmpretrain-vit')


def test_timm_without_layer_scale_and_with_key_bias(make):
    """timm's default architecture, which the checkpoints of MAE have too."""
    theirs = timm.create_model('vit_base_patch16_224', img_size=SIZE, patch_size=PATCH, embed_dim=DIMS,
                               depth=2, num_heads=HEADS, num_classes=0).eval()
    for value in theirs.state_dict().values():
        value.copy_(torch.randn(value.shape) / 4)
    state = theirs.state_dict()
    mae = state | {'mask_token': torch.zeros(1, 1, 16), 'decoder_embed.weight': torch.zeros(16, DIMS),
                   'decoder_blocks.0.norm1.weight': torch.zeros(16)}
    with pytest.raises(ValueError, match='3 unexpected.*mask_token.*export only the encoder'):
        convert(mae)
    report = []
    converted = convert(mae, export='encoder', report=report)
    assert 'key biases of 2 blocks' in ' '.join(report) and 'layer scales of all blocks' in ' '.join(report)
    assert 'unexpected 3, left out: mask_token, decoder_embed.weight' in ' '.join(report)
    same(converted, convert(state))
    ours = make('encoder')
    ours.load_state_dict({name.removeprefix('backbone.'): v for name, v in converted.items()})
    images = torch.randn(2, 3, SIZE, SIZE)
    torch.testing.assert_close(ours(images)[0], theirs(images), atol=1e-5, rtol=0)


ARCH = dict(embed_dims=DIMS, num_layers=2, num_heads=HEADS, feedforward_channels=4 * DIMS)
MMPRETRAIN = dict(arch=ARCH, img_size=SIZE, patch_size=PATCH)
TOKEN = dict(final_norm=True, out_type='cls_token')
MEAN = dict(final_norm=False, out_type='avg_featmap')


@pytest.mark.parametrize('target, pooling, relative, config', [
    ('mmpretrain', 'token', False, dict(type='BEiTViT', use_abs_pos_emb=True, use_rel_pos_bias=False)),
    ('mmpretrain', 'mean', False, dict(type='BEiTViT', use_abs_pos_emb=True, use_rel_pos_bias=False)),
    ('mmpretrain', 'mean', True, dict(type='BEiTViT', use_abs_pos_emb=True)),
    ('mmpretrain-vit', 'token', False, dict(type='VisionTransformer', layer_scale_init_value=1.)),
    ('mmpretrain-vit', 'mean', False, dict(type='VisionTransformer', layer_scale_init_value=1.)),
])
def test_mmpretrain_computes_the_same(make, target, pooling, relative, config):
    ours = make('encoder', use_rel_pos_bias=relative,
                out_type={'token': 'cls_token', 'mean': 'avg_featmap'}[pooling])
    theirs = make(dict(config, **MMPRETRAIN, **{'token': TOKEN, 'mean': MEAN}[pooling]))
    state = convert(ours.state_dict(), target=target, pooling=pooling)
    theirs.load_state_dict({name.removeprefix('backbone.'): value for name, value in state.items()})
    images = torch.randn(2, 3, SIZE, SIZE)
    torch.testing.assert_close(theirs(images)[0], ours(images)[0], atol=1e-5, rtol=0)


def test_masked_autoencoders_of_mmpretrain(make):
    theirs = make(dict(type='MAEViT', **MMPRETRAIN))
    ours = make('encoder', out_type='raw')
    state = convert({'backbone.' + k: v for k, v in theirs.state_dict().items()}
                    | {'neck.mask_token': torch.zeros(1, 1, 8), 'neck.decoder_pred.bias': torch.zeros(8)},
                    'mmpretrain', export='encoder')
    ours.load_state_dict({name.removeprefix('backbone.'): value for name, value in state.items()})
    images = torch.randn(2, 3, SIZE, SIZE)
    torch.testing.assert_close(ours(images)[0], theirs(images, None)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize('shared', [False, True])
def test_beit_of_mmpretrain_has_only_relative_positions(make, shared):
    theirs = make(dict(type='BEiTViT', use_rel_pos_bias=not shared, use_shared_rel_pos_bias=shared,
                       **MMPRETRAIN, **MEAN))
    ours = make('encoder', use_rel_pos_bias=True, out_type='avg_featmap')
    state = convert(theirs.state_dict())
    assert not state['backbone.pos_embed'].any()
    ours.load_state_dict({name.removeprefix('backbone.'): value for name, value in state.items()})
    images = torch.randn(2, 3, SIZE, SIZE)
    torch.testing.assert_close(ours(images)[0], theirs(images)[0], atol=1e-5, rtol=0)


def test_the_context_autoencoder_of_mmpretrain(make, state):
    """Its pre-training model, whole: names, and the regressor and decoder in numbers."""
    theirs = make(dict(
        type='CAE', backbone=dict(type='CAEPretrainViT', layer_scale_init_value=1., **MMPRETRAIN),
        neck=dict(type='CAENeck', embed_dims=DIMS, num_heads=HEADS, regressor_depth=2, decoder_depth=2,
                  num_classes=3 * PATCH**2, layer_scale_init_value=1., mask_tokens_num=8),
        head=dict(type='CAEHead', loss=dict(type='CAELoss', lambd=2)),
        target_generator=dict(type='DALL-E', group_count=1, n_hid=4, vocab_size=4)))
    ours = make('pre-training')
    given = convert(ours.state_dict(), target='mmpretrain')
    tokenizer = {k: v for k, v in theirs.state_dict().items() if k.startswith('target_generator.')}
    theirs.load_state_dict(given | tokenizer)
    same(convert(theirs.state_dict()), ours.state_dict())

    images = torch.randn(2, 3, SIZE, SIZE)
    mask = torch.arange(16).expand(2, -1) % 2 == 0
    out = ours.forward_masked(images, mask)
    positions = theirs.backbone.pos_embed[:, 1:].expand(2, -1, -1)
    masked, visible = (positions[m].reshape(2, 8, DIMS) for m in (mask, ~mask))
    logits, predicted = theirs.neck(theirs.backbone(images, mask)[:, 1:], masked, visible)
    torch.testing.assert_close(predicted, out.predicted, atol=1e-5, rtol=0)
    torch.testing.assert_close(logits, out.logits, atol=1e-4, rtol=1e-5)


def official(golden, name):
    with np.load(golden / f'{name}.npz') as arrays:
        return {key.removeprefix('weights/'): torch.from_numpy(arrays[key])
                for key in arrays.files if key.startswith('weights/')}


@pytest.mark.parametrize('name', ['pretrain_small', 'pretrain_proj', 'finetune', 'linear_probe',
                                  'attentive_probe'])
def test_there_and_back_from_the_official_code(golden, name):
    theirs = official(golden, name)
    again = convert(convert(theirs), target='official')
    for key in list(again):
        if key.startswith('alignment_encoder.'):
            assert torch.equal(again.pop(key), theirs[key.replace('alignment_encoder', 'encoder')])
    # The tables of the attentive probe are frozen at zero: the way back has none. The index in a
    # window that is not square is left to the model.
    square = theirs['encoder.pos_embed' if 'pretrain' in name else 'pos_embed'].shape[1] - 1
    lost = ['bias_table'] * (name == 'attentive_probe') + ['index'] * (isqrt(square) ** 2 != square)
    same(again, change(theirs, lost))


def test_tables_of_an_attentive_probe_that_are_not_zero_are_kept(golden):
    theirs = official(golden, 'attentive_probe')
    table = 'blocks.1.attn.relative_position_bias_table'
    theirs[table] = theirs[table] + 1
    assert torch.equal(convert(theirs)[rename(table, 'official')], theirs[table])


@pytest.mark.parametrize('name, ours', [
    ('fc_norm.weight', 'backbone.norm.weight'), ('head.1.bias', 'head.fc.bias'),
    ('regresser.regressor_blocks.3.cross_attn.q_bias', 'neck.blocks.3.attn.q.bias')])
def test_one_name(name, ours):
    assert rename(name, 'official') == ours
    with pytest.raises(ValueError, match='lm_head.weight is no array of official'):
        rename('lm_head.weight', 'official')


NOTHING = torch.zeros(DIMS)
TIMM_REFUSALS = {
    'registers': (dict(reg_token=NOTHING.view(1, 1, -1)), 'reg_token'),
    'distillation': (dict(dist_token=NOTHING.view(1, 1, -1)), 'dist_token'),
    'norm of queries': (dict(blocks__0__attn__q_norm__weight=NOTHING), 'blocks.0.attn.q_norm.weight'),
    'norm before': (dict(norm_pre__weight=NOTHING), 'norm_pre.weight'),
    'attention pooling': (dict(attn_pool__latent=NOTHING), 'attn_pool.latent'),
    'swiglu': (dict(blocks__0__mlp__w12__weight=NOTHING), 'blocks.0.mlp.w12.weight'),
    'packed swiglu': (dict(blocks__0__mlp__fc2__weight=torch.zeros(DIMS, 2 * DIMS)), 'SwiGLU'),
    'two norms': (dict(fc_norm__weight=NOTHING), 'norm.weight and fc_norm.weight are both'),
    'no row of the class token': (dict(pos_embed=torch.ones(1, 16, DIMS)), 'no_embed_class'),
}


@pytest.mark.parametrize('case', TIMM_REFUSALS)
def test_other_architectures_are_refused_by_name(state, case):
    add, message = TIMM_REFUSALS[case]
    theirs = change(convert(state('encoder'), target='timm'), **add)
    with pytest.raises(ValueError, match=re.escape(message)):
        convert(theirs, export='encoder')


@pytest.mark.parametrize('drop, message', [
    ([r'norm1\.bias'], 'missing 2: backbone.blocks.0.norm1.bias, backbone.blocks.1.norm1.bias'),
    ([r'blocks\.1\.mlp'], 'missing 4: backbone.blocks.1.mlp'),
    (['cls_token'], 'missing 1: backbone.cls_token'),
    (['pos_embed'], 'missing 1: backbone.pos_embed'),
    ([r'backbone\.norm'], r'no final norm .*CAEViT\(final_norm=False\)'),
    ([r'blocks\.0\.gamma'], 'missing 2: backbone.blocks.0.gamma_1, backbone.blocks.0.gamma_2'),
])
def test_less_than_a_whole_encoder_is_refused(state, drop, message):
    with pytest.raises(ValueError, match=message):
        convert(change(state('classifier'), drop))


def test_less_than_a_whole_pretraining_model_is_refused(state):
    theirs = convert(state('pre-training'), target='official')
    del theirs['rd_pos_embed']
    with pytest.raises(ValueError, match='missing neck.pos_embed.*export only the encoder'):
        convert(theirs)
    convert(theirs, export='encoder')


@pytest.mark.parametrize('kind', [
    'pre-training', 'projected', 'classifier', 'linear probe', 'attentive probe'])
def test_each_array_is_needed(state, kind):
    whole = state(kind)
    convert(whole)
    # Counted, not used; and queries and values may have no bias.
    for name in [name for name in whole if not re.search(r'num_batches|cross_attn\.[qv]\.bias', name)]:
        with pytest.raises(ValueError, match='less than (a )?whole|no final norm|of no known'):
            convert({key: value for key, value in whole.items() if key != name})


def test_a_window_that_is_not_square(state):
    report, ours = [], state('relative', backbone=dict(KINDS['relative']['backbone'], img_size=(64, 16)))
    theirs = convert(ours, target='mmpretrain', report=report)
    assert 'the window is not square' in report[-1] and not any('index' in name for name in theirs)
    same(convert(theirs), ours)


def test_unknown_origins_are_refused(state):
    with pytest.raises(ValueError, match='no known origin.* layer1.weight, fc.bias.*cae_mm, official'):
        detect_origin({'layer1.weight': 0, 'fc.bias': 0})
    with pytest.raises(ValueError, match='not timm, with the arrays backbone.cls_token'):
        convert(state('encoder'), source='timm')
    # Without biases and layer scale the official code and timm have the same names.
    bare = change(convert(state('encoder'), target='timm'), [r'qkv\.bias', 'gamma'])
    with pytest.raises(ValueError, match='official or timm'):
        detect_origin(bare)


@pytest.mark.parametrize('option', [dict(target='dino'), dict(export='head'), dict(pooling='max')])
def test_unknown_options_are_refused(state, option):
    [(name, value)] = option.items()
    with pytest.raises(ValueError, match=f"{name}='{value}': choose one of"):
        convert(state('encoder'), **option)


def test_other_position_tables_of_regressor_or_decoder_are_refused(state):
    ours = state('pre-training')
    ours['head.pos_embed'] = ours['head.pos_embed'] + 1
    for target in ('official', 'mmpretrain'):
        with pytest.raises(ValueError, match='head.pos_embed differs .* export only the encoder'):
            convert(ours, target=target)


def test_the_report_names_everything(state):
    report = []
    theirs = convert(state('relative'), target='mmpretrain', report=report)
    assert report[0] == f'cae_mm, classifier: 2 blocks, width {DIMS}, patches of {PATCH}x{PATCH}'
    assert report[1].startswith(f'loaded {len(state("relative"))}: backbone.')
    assert report[2] == 'missing 0: the encoder is whole'
    assert report[3] == 'unexpected 0'
    assert 'in mmpretrain the final norm normalises the mean of the patch tokens' in report[4]
    report.clear()
    convert(theirs, report=report)
    assert report[3] == ('unexpected 2, left out: backbone.layers.0.attn.relative_position_index, '
                         'backbone.layers.1.attn.relative_position_index')
    assert report[4] == ('backbone.ln2.weight normalises the mean of the patch tokens, as for our '
                         "out_type='avg_featmap'")
