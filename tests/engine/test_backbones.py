"""Another encoder in a config: what of it follows, and what stays."""
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from cae_mm.engine import launch
from cae_mm.evaluation import protocol
from cae_mm.models import TimmViT

CONFIGS = Path(__file__).parents[2] / 'configs'
TASKS = ['cls/finetune_cae_vitb_100e', 'cls/linear_cae_vitb_90e', 'cls/attentive_cae_vitb_90e',
         'det/mask_rcnn_cae_vitb_1x_coco', 'det/cascade_mask_rcnn_cae_vitb_1x_coco',
         'seg/upernet_cae_vitb_160k_ade20k', 'seg/linear_cae_vitb_40k_ade20k']


def load(name, backbone, **options):
    return launch.load_config(Namespace(
        config=str(CONFIGS / f'{name}.py'), cfg_options=options, backbone=backbone, pretrained='none',
        launcher='none', work_dir='nowhere'))


def built(cfg):
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    with torch.device('meta'):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize('backbone', ['timm:vit_large_patch14_reg4_dinov2', 'cae_vitl', 'cae_vits'])
@pytest.mark.parametrize('name', TASKS)
def test_models_are_built_at_full_size(name, backbone):
    """Of another width and depth, taps at the same parts of it and frozen where it was."""
    cfg = load(name, backbone)
    model, layers = built(cfg).backbone, 12 if backbone == 'cae_vits' else 24
    assert model.num_layers == layers
    assert model.frozen_stages == (layers if 'linear' in name or 'attentive' in name else -1)
    many = 'rcnn' in name or 'upernet' in name
    assert model.out_indices == ([layers * k // 12 - 1 for k in (4, 6, 8, 12)] if many else [layers - 1])
    assert len([change for change in cfg.changes if change.startswith(f'backbone={backbone}')]) == 1


def test_what_follows_the_encoder():
    cfg = load('cls/attentive_cae_vitb_90e', 'timm:vit_base_patch16_siglip_224')
    assert cfg.data_preprocessor.mean == cfg.data_preprocessor.std == [127.5] * 3
    assert cfg.model.backbone == dict(
        type='TimmViT', name='vit_base_patch16_siglip_224', img_size=224, out_type='raw', frozen_stages=12,
        init_cfg=None)
    cfg = load('det/mask_rcnn_cae_vitb_1x_coco', 'timm:vit_small_patch14_reg4_dinov2')
    backbone = cfg.model.backbone
    assert backbone.type == 'mmpretrain.TimmViT' and backbone.patch_size == 16 and backbone.with_cp
    assert cfg.model.neck[1].in_channels == [384] * 4 and cfg.model.rpn_head.in_channels == 256
    cfg = load('cls/linear_cae_vitb_90e', 'timm:vit_base_patch16_siglip_224')
    assert cfg.model.backbone.out_type == 'avg_featmap'  # it has no class token
    cfg = load('cls/linear_cae_vitb_90e', 'timm:vit_small_patch14_reg4_dinov2')
    assert 'patch_size' not in cfg.model.backbone  # 224 = 16 x 14
    assert cfg.model.neck.input_features == cfg.model.head.in_channels == 384
    cfg = load('cls/finetune_cae_vitt_eurosat', 'timm:vit_small_patch14_reg4_dinov2')
    assert cfg.model.backbone.patch_size == 8 and cfg.model.backbone.img_size == 64


def test_a_checkpoint_of_a_given_path_is_loaded():
    cfg = load('seg/upernet_cae_vitb_160k_ade20k', 'timm:vit_small_patch16_dinov3')
    assert cfg.model.backbone.init_cfg is None
    cfg = launch.load_config(Namespace(
        config=str(CONFIGS / 'seg/upernet_cae_vitb_160k_ade20k.py'), cfg_options={}, work_dir='nowhere',
        backbone='timm:vit_small_patch16_dinov3', pretrained='a.pth', launcher='none'))
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint='a.pth', prefix='backbone.')


@pytest.mark.parametrize('name, backbone, problem', [
    ('pretrain/cae_vitb_300e', 'cae_vits', 'CAEViT in a ContextAutoencoder, whose place no other takes'),
    ('tokenizer/dvae_imagenet', 'cae_vits', 'no backbone'),
    ('cls/linear_cae_vitb_90e', 'vit_small_patch16_dinov3', 'write timm:NAME'),
    ('cls/linear_cae_vitb_90e', 'timm:vit_small_patch16_dinov33', 'do you mean vit_small_patch16_dinov3'),
    ('cls/linear_cae_vitb_90e', 'timm:resnet50', 'no plain vision transformer')])
def test_what_cannot_be(name, backbone, problem):
    with pytest.raises(ValueError, match=problem):
        load(name, backbone)


def test_an_encoder_of_timm_by_its_name():
    """Pixels are normalised as its own; images are of its size, or the one that is given."""
    args = Namespace(config='timm:vit_tiny_patch16_224', cfg_options=None, img_size=None)
    name = protocol.read_config(args)
    backbone, preprocess = protocol.load_encoder(name, 'none', 'cpu', img_size=64)
    assert isinstance(backbone, TimmViT) and backbone.grid_size == (4, 4)
    assert preprocess.mean.flatten().tolist() == preprocess.std.flatten().tolist() == [127.5] * 3
    assert protocol.load_encoder(name, 'none', 'cpu')[0].grid_size == (14, 14)
    args.config, args.img_size = str(CONFIGS / 'cls/finetune_cae_vitb_100e.py'), 64
    with pytest.raises(ValueError, match='--img-size is for an encoder given by its name'):
        protocol.read_config(args)
