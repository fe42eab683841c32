"""Learning-rate scales and weight decay of every parameter against those of the official code."""
import json
import re

import pytest
import torch
from mmpretrain.registry import MODELS
from torch import nn

from cae_mm.checkpoint.names import rename
from cae_mm.engine import LayerDecayOptimWrapperConstructor


def depth(names, prefix):
    found = (re.match(rf'{prefix}\.(\d+)', name) for name in names)
    return 1 + max(int(match[1]) for match in found if match)


def check(model, want, **paramwise_cfg):
    """Compare name -> (scale, decay), and that there is one group per such pair."""
    decay = max(decay for _, decay in want.values())
    wrapper = LayerDecayOptimWrapperConstructor(
        dict(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=decay)), paramwise_cfg)(model)
    groups = wrapper.optimizer.param_groups
    got = {name: [group['lr_scale'], group['weight_decay']]
           for group in groups for name in group['param_names']}
    assert got.keys() == want.keys()
    assert got == {name: pytest.approx(value, rel=1e-9) for name, value in want.items()}
    assert len(groups) == len({tuple(value) for value in want.values()})
    parameters = dict(model.named_parameters())
    for group in groups:
        assert all(parameters[name] is param
                   for name, param in zip(group['param_names'], group['params'], strict=True))


@pytest.mark.parametrize('fixture', ['param_groups-pretrain'])
def test_pretrain_groups(golden, fixture):
    file, key = fixture.split('-')
    want = json.loads((golden / f'{file}.json').read_text())[key]
    width = 12 if any(name.startswith('encoder_to_regresser') for name in want) else 24
    model = MODELS.build(dict(
        type='ContextAutoencoder',
        backbone=dict(type='CAEViT', img_size=16, patch_size=8, arch=dict(
            embed_dims=24, num_layers=depth(want, r'encoder\.blocks'), num_heads=2)),
        neck=dict(type='LatentContextualRegressor', grid_size=2, in_dims=24, embed_dims=width,
                  num_heads=2, depth=depth(want, r'regresser\.regressor_blocks')),
        head=dict(type='CAEDecoder', grid_size=2, num_outputs=192, embed_dims=width, num_heads=2,
                  depth=depth(want, r'decoder\.decoder_blocks')),
        target_generator=dict(type='PixelTarget', patch_size=8)))
    check(model, {rename(name, 'official'): value for name, value in want.items()})


def name_downstream(name):
    """Our name of a parameter of the official classifier, detector or segmentor."""
    name = name.removeprefix('backbone.')
    name = re.sub(r'^patch_embed\.proj', 'patch_embed', name)
    name = name.replace('attn.relative', 'attn.rel_pos.relative')
    name = re.sub(r'^fc_norm', 'norm', name)
    inside = name.startswith(('cls_token', 'patch_embed', 'blocks', 'norm'))
    return f'backbone.{name}' if inside else name


def test_every_downstream_fixture_is_tested(golden):
    keys = json.loads((golden / 'param_groups.json').read_text()).keys()
    assert {key.split('_')[0] for key in keys} == {'pretrain', 'finetune', 'det', 'seg'}


@pytest.mark.parametrize('task', ['finetune', 'det', 'seg'])
@pytest.mark.parametrize('fixture', ['param_groups'])
def test_downstream_groups(golden, fixture, task):
    groups = json.loads((golden / f'{fixture}.json').read_text())
    groups = {key: want for key, want in groups.items() if key.startswith(task)}
    assert groups
    for key, want in groups.items():
        want = {name_downstream(name): value for name, value in want.items()}
        model = nn.Module()
        model.backbone = MODELS.build(dict(
            type='CAEViT', img_size=16, patch_size=8, final_norm=task == 'finetune', arch=dict(
                embed_dims=8, num_layers=depth(want, r'backbone\.blocks'), num_heads=2),
            use_rel_pos_bias=any('relative' in name for name in want)))
        # Neck and heads have the names of the fixture; of their shape only the dimension matters.
        for name, (_, decay) in want.items():
            if not name.startswith('backbone.'):
                *path, leaf = name.split('.')
                part = model
                for child in path:
                    if not hasattr(part, child):
                        part.add_module(child, nn.Module())
                    part = getattr(part, child)
                part.register_parameter(leaf, nn.Parameter(torch.zeros([1] * (4 if decay else 1))))
        check(model, want, layer_decay_rate=float(key.split('_')[-1]),
              decay_cls_token=task != 'finetune')
