"""Backbone and neck of detection and segmentation against those of the official code."""
import json

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from torch import nn

from cae_mm.checkpoint.convert import convert
from cae_mm.checkpoint.files import write_checkpoint
from cae_mm.checkpoint.loader import load_backbone
from cae_mm.positions import sincos_positions

TOLERANCE = dict(atol=2e-5, rtol=0)


@pytest.fixture
def fixture(golden, name):
    entry = json.loads((golden / 'manifest.json').read_text())['entries'][name]
    with np.load(golden / entry['file']) as arrays:
        arrays = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    weights = {k.removeprefix('weights/'): v for k, v in arrays.items() if k.startswith('weights/')}
    return entry, arrays, weights


def build(entry, **kwargs):
    c = entry['constructor']
    kwargs = {'use_rel_pos_bias': c['use_rel_pos_bias'], **kwargs}
    backbone = dict(
        type='CAEViT', img_size=c['img_size'], patch_size=c['patch_size'], mlp_ratio=c['mlp_ratio'],
        arch=dict(embed_dims=c['embed_dim'], num_layers=c['depth'], num_heads=c['num_heads']),
        out_type='featmap', out_indices=c['out_indices'], final_norm=False, pos_mode='resize',
        layer_scale_init_value=c['init_values'], **kwargs)
    neck = dict(type='ViTFeaturePyramid', in_channels=c['embed_dim'])
    return nn.ModuleDict(dict(backbone=MODELS.build(backbone), neck=MODELS.build(neck))).eval()


def close(actual, expected):
    torch.testing.assert_close(actual.detach(), expected, **TOLERANCE)


def check(model, images, wanted):
    """Compare the scales that there are numbers of, by 'f0' to 'f3'."""
    maps = model.neck(model.backbone(images))
    wanted = {key: value for key, value in wanted.items() if key[0] == 'f'}
    assert wanted
    for key, value in wanted.items():
        close(maps[int(key[1:])], value)


def below(arrays, prefix):
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


@pytest.mark.parametrize('name', ['det_backbone'])
def test_detection_at_every_size(fixture):
    entry, arrays, weights = fixture
    model = build(entry)
    model.load_state_dict(convert(weights, source='official'))
    for size, (height, width) in entry['sizes_HxW'].items():
        images = arrays[f'in/{size}']
        assert images.shape[2:] == (height, width)
        close(model.backbone.positions(model.backbone.grid(height, width)),
              arrays[f'out/{size}/pos_embed_used'])
        check(model, images, below(arrays, f'out/{size}/'))


@pytest.mark.parametrize('name', ['det_backbone'])
def test_detection_without_a_checkpoint_has_scrambled_positions(fixture):
    """Those of the official constructor are ours of the transposed grid."""
    entry, arrays, weights = fixture
    model, constructed = build(entry), arrays['out/pos_embed_constructed']
    height, width = model.backbone.grid_size
    close(sincos_positions(constructed.shape[-1], width, height), constructed)
    model.load_state_dict(convert(weights | dict(pos_embed=constructed), source='official'))
    check(model, arrays['in/train'], below(arrays, 'out/train_with_constructed_pos_embed/'))


@pytest.mark.parametrize('tables', [True, False], ids=['relative_bias', 'no_relative_bias'])
@pytest.mark.parametrize('name', ['seg_backbone'])
def test_segmentation(fixture, tables):
    entry, arrays, weights = fixture
    if not tables:
        weights = {k: v for k, v in weights.items() if 'relative_position' not in k}
    model = build(entry, use_rel_pos_bias=tables)
    model.load_state_dict(convert(weights, source='official'))
    check(model, arrays['in/images'], below(arrays, 'out/' if tables else 'out/norel/'))


@pytest.mark.parametrize('name', ['det_backbone', 'seg_backbone'])
def test_positions_of_a_checkpoint_are_resized_as_it_is_loaded(fixture, tmp_path):
    entry, arrays, weights = fixture
    before = weights | dict(pos_embed=arrays['in/checkpoint_pos_embed'])
    assert before['pos_embed'].shape != weights['pos_embed'].shape
    write_checkpoint(before, tmp_path / 'official.pth', 'model')
    model = build(entry)
    load_backbone(model.backbone, tmp_path / 'official.pth', prefix='')
    close(model.backbone.pos_embed, weights['pos_embed'])
    wanted = convert(weights, source='official')
    for key, value in model.backbone.state_dict().items():
        if key != 'pos_embed':
            assert torch.equal(value, wanted[f'backbone.{key}']), key


@pytest.mark.parametrize('name', ['det_backbone', 'seg_backbone'])
def test_there_and_back(fixture):
    _, _, weights = fixture
    ours = convert(weights, source='official')
    back = convert(ours, target='official')
    weights = {key: value for key, value in weights.items() if not key.endswith('position_index')}
    assert weights.keys() <= back.keys()
    assert all(torch.equal(back[key], value) for key, value in weights.items())
