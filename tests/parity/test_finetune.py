"""The fine-tuning model, its losses and gradients against the official implementation."""
import json

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS

from cae_mm.checkpoint.convert import convert

TOLERANCE = dict(atol=2e-5, rtol=0)


def build(entry, state, use_rel_pos_bias):
    """The classifier as the fine-tuning configs build it, with the official weights."""
    c = entry['constructor']
    model = MODELS.build(dict(
        type='ImageClassifier',
        backbone=dict(
            type='CAEViT', img_size=c['img_size'], patch_size=c['patch_size'],
            mlp_ratio=c['mlp_ratio'], out_type='avg_featmap', use_rel_pos_bias=use_rel_pos_bias,
            layer_scale_init_value=c['init_values'],
            arch=dict(embed_dims=c['embed_dim'], num_layers=c['depth'], num_heads=c['num_heads'])),
        head=dict(
            type='LinearClsHead', num_classes=c['num_classes'], in_channels=c['embed_dim'],
            loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'))))
    if not use_rel_pos_bias:
        state = {k: v for k, v in state.items() if 'relative_position' not in k}
    model.load_state_dict(convert(state, source='official'))
    return model


def close(actual, expected):
    torch.testing.assert_close(actual.detach(), expected, **TOLERANCE)


@pytest.mark.parametrize('prefix', ['', 'norel/'], ids=['relative_bias', 'no_relative_bias'])
@pytest.mark.parametrize('name', ['finetune'])
def test_forward_losses_and_gradients(golden, name, prefix):
    entry = json.loads((golden / 'manifest.json').read_text())['entries'][name]
    with np.load(golden / entry['file']) as arrays:
        arrays = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    weights = {k.removeprefix('weights/'): v for k, v in arrays.items() if k.startswith('weights/')}
    model = build(entry, weights, use_rel_pos_bias=not prefix)
    images, soft, hard = (arrays[f'in/{key}'] for key in ('images', 'soft_targets', 'hard_targets'))

    [features] = model.backbone(images)
    close(features, arrays[f'out/{prefix}features'])
    logits = model.head([features])
    close(logits, arrays[f'out/{prefix}logits'])
    # The head's own loss on hard labels, as on mmpretrain's mixed one-hot labels.
    smoothing = model.head.loss_module
    close(smoothing(logits, hard), arrays[f'out/{prefix}loss_label_smoothing_0.1'])
    one_hot = torch.nn.functional.one_hot(hard, logits.shape[1]).float()
    close(smoothing(logits, one_hot), arrays[f'out/{prefix}loss_label_smoothing_0.1'])

    loss = torch.nn.functional.cross_entropy(logits, soft)
    close(loss, arrays[f'out/{prefix}loss_soft_ce'])
    loss.backward()
    wanted = {k.removeprefix('grad/'): v for k, v in arrays.items() if k.startswith('grad/')}
    wanted = {k.removeprefix(prefix): v for k, v in wanted.items()
              if k.startswith('norel/') == bool(prefix)}
    assert wanted
    # The names of gradients are those of the weights: the same conversion finds ours.
    for key, value in wanted.items():
        marked = {k: torch.full_like(v, float(k == key)) for k, v in weights.items()
                  if v.is_floating_point() and not (prefix and 'relative_position' in k)}
        [ours] = [k for k, v in convert(marked, source='official').items()
                  if v.numel() and (v == 1).all()]
        close(model.get_parameter(ours).grad, value)
