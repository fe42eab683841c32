"""Weight-decay groups of pre-training against those of the official code."""
import json
import re

import pytest
from mmpretrain.registry import MODELS

from cae_mm.checkpoint.official import official_to_ours
from cae_mm.engine import LayerDecayOptimWrapperConstructor


def depth(names, prefix):
    found = (re.match(rf'{prefix}\.(\d+)', name) for name in names)
    return 1 + max(int(match[1]) for match in found if match)


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
    decay = max(decay for _, decay in want.values())
    wrapper = LayerDecayOptimWrapperConstructor(
        dict(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=decay)))(model)

    groups = wrapper.optimizer.param_groups
    got = {name: [group['lr_scale'], group['weight_decay']]
           for group in groups for name in group['param_names']}
    assert got == {official_to_ours(name): value for name, value in want.items()}
    assert len(groups) == len({tuple(value) for value in want.values()})
    parameters = dict(model.named_parameters())
    for group in groups:
        assert all(parameters[name] is param
                   for name, param in zip(group['param_names'], group['params'], strict=True))
