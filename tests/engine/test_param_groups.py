"""Which learning rate and weight decay a parameter gets."""
import copy

import pytest
import torch
from mmpretrain.registry import MODELS, PARAM_SCHEDULERS
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
    classifier.backbone.adapter = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r'backbone\.adapter\.weight is no parameter of CAEViT'):
        groups_of(classifier, layer_decay_rate=0.5)
    classifier.backbone.get_layer_depth = lambda name, prefix: (7, 4)
    with pytest.raises(ValueError, match=r'backbone\.\w+.*\(7, 4\)'):
        groups_of(classifier, layer_decay_rate=0.5)
    classifier.backbone = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r'get_layer_depth\(name, prefix\), found none'):
        groups_of(classifier, layer_decay_rate=0.5)


def test_finds_the_backbone_of_a_classifier():
    model = MODELS.build(dict(
        type='ImageClassifier', head=dict(type='LinearClsHead', num_classes=2, in_channels=8),
        backbone=dict(type='CAEViT', img_size=16, patch_size=8,
                      arch=dict(embed_dims=8, num_layers=2, num_heads=2))))
    _, scales = groups_of(model, layer_decay_rate=0.5)
    assert scales['backbone.blocks.0.gamma_1'] == (0.25, 0.)
    assert scales['head.fc.weight'] == (1., 0.1)


def test_finds_the_backbone_inside_a_wrapper(classifier):
    wrapper = nn.ModuleDict(dict(student=classifier))
    _, scales = groups_of(wrapper, layer_decay_rate=0.5)
    assert scales['student.backbone.blocks.0.gamma_1'] == (0.25, 0.)
    assert scales['student.head.weight'] == (1., 0.1)
    wrapper['teacher'] = copy.deepcopy(classifier)
    with pytest.raises(ValueError, match=r'found student\.backbone\., teacher\.backbone\.'):
        groups_of(wrapper, layer_decay_rate=0.5)


@pytest.mark.parametrize('schedule', [
    dict(type='WarmupCosineLR', warmup_iters=2, min_lr=0.1, by_epoch=False, end=6),
    dict(type='MultiStepLR', milestones=[2, 4], gamma=0.5, by_epoch=False)])
def test_effective_rates_follow_schedule_and_depth(classifier, schedule):
    wrapper = LayerDecayOptimWrapperConstructor(
        dict(type='mmpretrain.AutocastOptimWrapper', optimizer=dict(type='SGD', lr=2.)),
        dict(layer_decay_rate=0.5))(classifier)
    scheduler = PARAM_SCHEDULERS.build(dict(schedule, optimizer=wrapper))
    expected = {'WarmupCosineLR': lambda step: (0., 2., 2., 1.7217, 1.05, 0.3783)[step],
                'MultiStepLR': lambda step: 2. * 0.5**(step // 2)}[schedule['type']]
    for step in range(6):
        # With gradients of one, SGD moves a parameter by its rate.
        before = {name: param.detach().clone() for name, param in classifier.named_parameters()}
        wrapper.update_params(sum(param.sum() for param in classifier.parameters()))
        for name, scale in (('head.weight', 1.), ('backbone.blocks.1.attn.q_bias', 0.5),
                            ('backbone.cls_token', 0.125)):
            moved = (before[name] - classifier.get_parameter(name)).mean().item()
            assert moved == pytest.approx(expected(step) * scale, abs=1e-4)
        scheduler.step()


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
