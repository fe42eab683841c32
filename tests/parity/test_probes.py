"""Linear and attentive probing, and LARS, against the official code."""
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

from cae_mm.checkpoint.convert import convert
from cae_mm.engine import TimmLars

CONFIGS = Path(__file__).parents[2] / 'configs' / 'cls'


def load(golden, name):
    entry = json.loads((golden / 'manifest.json').read_text())['entries'][name]
    with np.load(golden / entry['file']) as arrays:
        return entry, {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def close(actual, expected):
    torch.testing.assert_close(actual.detach(), expected, atol=2e-5, rtol=0)


def build(golden, name, config):
    """The classifier of a config in the sizes of a fixture, with its weights and arrays."""
    entry, arrays = load(golden, name)
    c, cfg = entry['constructor'], Config.fromfile(CONFIGS / config)
    cfg.model.backbone.update(
        arch=dict(embed_dims=c['embed_dim'], num_layers=c['depth'], num_heads=c['num_heads']),
        img_size=c['img_size'], patch_size=c['patch_size'], mlp_ratio=c['mlp_ratio'],
        frozen_stages=c['depth'], init_cfg=None)
    cfg.model.head.update(in_channels=c['embed_dim'], num_classes=c['num_classes'])
    if 'num_heads' in cfg.model.head:
        cfg.model.head.num_heads = c['num_heads']
    if 'neck' in cfg.model:
        cfg.model.neck.input_features = c['embed_dim']
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    state = {key.removeprefix('weights/'): value for key, value in arrays.items()
             if key.startswith('weights/')}
    model.load_state_dict(convert(state, source='official'))
    return model.eval(), arrays


@pytest.mark.parametrize('name', ['linear_probe'])
def test_linear_probe(golden, name):
    model, arrays = build(golden, name, 'linear_cae_vitb_90e.py')
    images = arrays['in/images']
    close(model.backbone(images)[-1], arrays['out/features'])
    close(model(images), arrays['out/logits_eval'])
    close(model.train()(images), arrays['out/logits_train'])
    close(model.neck.bn.running_mean, arrays['out/running_mean_after_train'])
    close(model.neck.bn.running_var, arrays['out/running_var_after_train'])


@pytest.mark.parametrize('name', ['attentive_probe'])
def test_attentive_probe(golden, name):
    """In evaluation with running statistics, the official ``is_train=False``."""
    model, arrays = build(golden, name, 'attentive_cae_vitb_90e.py')
    images = arrays['in/images']
    close(model.head.pool(model.backbone(images)[-1]), arrays['out/attentive_block'][:, 0])
    close(model(images), arrays['out/logits_is_train_False'])
    close(model.train()(images), arrays['out/logits_is_train_True'])
    close(model.head.bn.running_mean, arrays['out/running_mean_after'])
    close(model.head.bn.running_var, arrays['out/running_var_after'])


@pytest.mark.parametrize('name', ['schedules'])
def test_lars_steps(golden, name):
    entry, arrays = load(golden, name)
    options = dict(re.findall(r'(\w+)=([\d.e-]+)', entry['calls']['lars']['call']))
    options = {key: float(value) for key, value in options.items()}
    weight, bias = (torch.nn.Parameter(arrays[f'lars/{key}0'].clone()) for key in 'wb')
    optimizer = TimmLars([weight, bias], trust_coeff=options.pop('trust_coefficient'), **options)
    count = sum(key.startswith('lars/grad_w') for key in arrays)
    assert count
    for step in range(count):
        weight.grad, bias.grad = arrays[f'lars/grad_w{step}'], arrays[f'lars/grad_b{step}']
        optimizer.step()
        close(weight, arrays[f'lars/w{step + 1}'])
        close(bias, arrays[f'lars/b{step + 1}'])
