"""Which learning rate and weight decay a parameter gets."""
import pytest
import torch
from mmpretrain.registry import MODELS
from torch import nn

from cae_mm.engine import LayerDecayOptimWrapperConstructor


def groups_of(model, **paramwise_cfg):
    wrapper = LayerDecayOptimWrapperConstructor(
        dict(optimizer=dict(type='AdamW', lr=2., weight_decay=0.1)), paramwise_cfg)(model)
    return wrapper.optimizer.param_groups, {
        name: (group['lr_scale'], group['weight_decay'])
        for group in wrapper.optimizer.param_groups for name in group['param_names']}


@pytest.fixture
def classifier():
    model = nn.Module()
    model.backbone = MODELS.build(dict(
        type='CAEViT', img_size=16, patch_size=8,
        arch=dict(embed_dims=8, num_layers=2, num_heads=2)))
    model.head = nn.Linear(8, 3)
    return model


def test_rate_falls_with_depth(classifier):
    groups, scales = groups_of(classifier, layer_decay_rate=0.5)
    assert scales['head.weight'] == (1., 0.1)
    assert scales['head.bias'] == (1., 0.)
    assert scales['backbone.norm.weight'] == (1., 0.)
    assert scales['backbone.blocks.1.mlp.fc1.weight'] == (0.5, 0.1)
    assert scales['backbone.blocks.0.gamma_1'] == (0.25, 0.)
    assert scales['backbone.patch_embed.weight'] == (0.125, 0.1)
    assert scales['backbone.cls_token'] == (0.125, 0.1)
    assert groups[0]['lr'] == 2.
    assert len(groups) == 8
    assert all(group['lr'] == 2. * group['lr_scale'] for group in groups)


def test_exceptions_from_decay(classifier):
    _, scales = groups_of(classifier, decay_cls_token=False, no_decay=['patch_embed.weight'])
    assert scales['backbone.cls_token'] == (1., 0.)
    assert scales['backbone.patch_embed.weight'] == (1., 0.)
    assert scales['head.weight'] == (1., 0.1)


def test_frozen_parameters_are_absent(classifier):
    classifier.backbone.requires_grad_(False)
    _, scales = groups_of(classifier)
    assert set(scales) == {'head.weight', 'head.bias'}
    classifier.requires_grad_(False)
    with pytest.raises(ValueError, match='no trainable parameter'):
        groups_of(classifier)


def test_parameters_without_a_place(classifier):
    classifier.backbone.get_layer_depth = lambda name, prefix: (7, 4)
    with pytest.raises(ValueError, match=r'backbone\.\w+.*\(7, 4\)'):
        groups_of(classifier, layer_decay_rate=0.5)
    classifier.backbone = nn.Linear(2, 2)
    with pytest.raises(ValueError, match='Linear.get_layer_depth'):
        groups_of(classifier, layer_decay_rate=0.5)


def test_unknown_settings(classifier):
    with pytest.raises(ValueError, match='layer_decay.*layer_decay_rate'):
        groups_of(classifier, layer_decay=0.5)
    with pytest.raises(ValueError, match="no_decay='head' is one string"):
        groups_of(classifier, no_decay='head')


def test_fused_unless_told_otherwise(classifier):
    def build(**kwargs):
        return LayerDecayOptimWrapperConstructor(
            dict(optimizer=dict(type='AdamW', lr=1., **kwargs)))(classifier).optimizer

    assert build().defaults['fused']
    assert not build(foreach=True).defaults['fused']
    assert not build(fused=False).defaults['fused']
    assert all(type(group) is dict for group in build().param_groups)
    assert isinstance(build(), torch.optim.AdamW)
