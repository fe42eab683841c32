"""Small models of ours with random weights, of every kind that is saved."""
import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

DIMS, HEADS, SIZE, PATCH = 24, 4, 32, 8
ENCODER = dict(type='CAEViT', arch=dict(embed_dims=DIMS, num_layers=2, num_heads=HEADS), img_size=SIZE,
               patch_size=PATCH)
HEAD = dict(in_channels=DIMS, num_classes=5)


def pretraining(width):
    common = dict(grid_size=SIZE // PATCH, embed_dims=width, num_heads=HEADS, depth=2)
    return dict(
        type='ContextAutoencoder', backbone=ENCODER,
        neck=dict(type='LatentContextualRegressor', in_dims=DIMS, **common),
        head=dict(type='CAEDecoder', num_outputs=3 * PATCH**2, **common),
        target_generator=dict(type='PixelTarget', patch_size=PATCH))


KINDS = {
    'pre-training': pretraining(DIMS),
    'projected': pretraining(16),
    'classifier': dict(type='ImageClassifier', backbone=dict(ENCODER, out_type='avg_featmap'),
                       head=dict(type='LinearClsHead', **HEAD)),
    'relative': dict(type='ImageClassifier', head=dict(type='LinearClsHead', **HEAD), backbone=dict(
        ENCODER, out_type='avg_featmap', use_rel_pos_bias=True)),
    'linear probe': dict(
        type='ImageClassifier', backbone=ENCODER, head=dict(type='LinearClsHead', **HEAD),
        neck=dict(type='ClsBatchNormNeck', input_features=DIMS, affine=False)),
    'attentive probe': dict(
        type='ImageClassifier', backbone=dict(ENCODER, out_type='raw'),
        head=dict(type='AttentiveProbeHead', num_heads=HEADS, **HEAD)),
    'encoder': ENCODER,
}


def randomise(module):
    """Give every array other numbers, position tables excepted."""
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        if value.is_floating_point() and not name.endswith('pos_embed'):
            value.copy_(torch.rand(value.shape, generator=generator) / 2 - 0.2 + name.endswith('_var'))
    module.eval()  # mmpretrain's backbones return None here
    return module


@pytest.fixture
def make():
    """A function that builds one of ``KINDS``, or any module of mmpretrain's registry."""

    def build(kind, **changes):
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            return randomise(MODELS.build(dict(KINDS[kind] if isinstance(kind, str) else kind, **changes)))

    return build


@pytest.fixture
def state(make):
    """A function that gives the state dict of one of ``KINDS``, an encoder's under 'backbone.'."""

    def get(kind, **changes):
        model = make(kind, **changes)
        prefix = 'backbone.' if kind == 'encoder' else ''
        return {prefix + name: value.clone() for name, value in model.state_dict().items()}

    return get
