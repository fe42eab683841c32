"""Models by name, here and in mmpretrain's hub, also from an installed package."""
import importlib
from pathlib import Path

import mmpretrain
import numpy as np
import pytest
import torch
from PIL import Image

import cae_mm
from cae_mm.models import CAEDataPreprocessor
from cae_mm.models.vit import ARCHITECTURES

ROOT = Path(__file__).parents[1]
COLOUR = torch.tensor([200, 120, 30], dtype=torch.uint8)  # not changed by resizing, but by BGR for RGB


def flat(*colour):
    """A batch of one picture of 224 pixels in one colour."""
    return {'inputs': torch.stack(colour)[None, :, None, None].expand(1, 3, 224, 224)}


def tiny(name):
    """Changes of the config that make it small."""
    backbone = dict(arch=dict(_delete_=True, embed_dims=24, num_layers=2, num_heads=3))
    if name.startswith('cae'):
        return dict(backbone=backbone, neck=dict(in_dims=24, depth=1), head=dict(depth=1))
    parts = dict(backbone=backbone | dict(frozen_stages=-1), head=dict(in_channels=24, num_classes=3))
    if name.startswith('linear'):
        parts['neck'] = dict(input_features=24)
    if name.startswith('attentive'):
        parts['head']['num_heads'] = 3
    return parts


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / 'picture.png'
    Image.fromarray(np.full((60, 90, 3), COLOUR)).save(path)
    return str(path)


def save(path, model, prefix='', **meta):
    torch.save({'state_dict': {prefix + k: v for k, v in model.state_dict().items()}, 'meta': meta}, path)
    return str(path)


def test_every_architecture_has_a_name():
    with torch.device('meta'):
        built = {name: cae_mm.get_model(name) for name in cae_mm.list_models()}
    assert {'cae_vits', 'cae_vitb', 'cae_vitl'} <= built.keys()
    sizes = [(m.embed_dims, m.num_layers, m.blocks[0].attn.num_heads) for m in built.values()]
    assert sorted(sizes) == sorted(ARCHITECTURES.values())
    assert built['cae_vitl'].embed_dims == 1024
    assert cae_mm.list_models('cae_deit*') == ['cae_deits', 'cae_deitt']


def test_encoder_with_weights_and_options(tmp_path):
    trained = cae_mm.get_model('cae_deitt', img_size=64)
    path = save(tmp_path / 'checkpoint.pth', trained, prefix='backbone.')
    model = cae_mm.get_model('cae_deitt', pretrained=path, img_size=32, out_type='featmap')
    assert not model.training
    images = torch.randn(2, 3, 64, 64)
    [features] = model(images)
    assert features.shape == (2, 192, 4, 4)
    torch.testing.assert_close(features.flatten(2).mT, trained.encode(images)[:, 1:])


def test_an_architecture_of_ones_own():
    model = cae_mm.get_model('cae_vits', arch=dict(embed_dims=24, num_layers=2, num_heads=3), img_size=32)
    assert (model.embed_dims, model.num_layers, model.blocks[0].attn.num_heads) == (24, 2, 3)


@pytest.mark.parametrize('name, pretrained, message', [
    ('cae_vit_b', None, 'mean cae_vitb'),
    ('finetune_cae_vitb_100e', None, 'mmpretrain.get_model'),
    ('cae_vitb', True, 'no weights.*Atten4Vis/CAE.*convert.py'),
])
def test_wrong_names(name, pretrained, message):
    with pytest.raises(ValueError, match=message):
        cae_mm.get_model(name, pretrained)


def test_mmpretrain_lists_our_models_once():
    importlib.reload(cae_mm)
    assert {'cae_vitb_1600e', 'cae_vits_300e'} <= set(mmpretrain.list_models('cae_*'))
    tasks = mmpretrain.list_models('*_cae_vit', task='Image Classification')
    assert len(tasks) == 10 and 'attentive_cae_vits_90e' in tasks


@pytest.mark.parametrize('name', [
    'finetune_cae_vits_100e', 'linear_cae_vits_90e', 'attentive_cae_vits_90e'])
def test_mmpretrain_classifies(name, picture, tmp_path):
    trained = mmpretrain.get_model(name, **tiny(name))
    for parameter in trained.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    path = save(tmp_path / 'classifier.pth', trained, dataset_meta=dict(classes=('a', 'b', 'c')))
    classify = mmpretrain.ImageClassificationInferencer(name, pretrained=path, **tiny(name))
    [result] = classify(picture)
    inputs = trained.data_preprocessor(flat(*COLOUR.flip(0)))['inputs']
    with torch.no_grad():
        expected = trained(inputs, mode='predict')[0].pred_score
    np.testing.assert_allclose(result['pred_scores'], expected.numpy(), atol=1e-5)
    assert result['pred_class'] == 'abc'[expected.argmax()]


def test_mmpretrain_extracts_features_with_our_encoder(picture, tmp_path):
    pretraining = mmpretrain.get_model('cae_vitb_300e_pixels', **tiny('cae_vitb_300e_pixels'))
    path = save(tmp_path / 'checkpoint.pth', pretraining)
    name = 'linear_cae_vits_90e'
    extract = mmpretrain.FeatureExtractor(name, pretrained=path, **tiny(name))
    [features] = extract(picture, stage='backbone')
    with torch.no_grad():
        expected = pretraining.backbone(CAEDataPreprocessor()(flat(*COLOUR))['inputs'])
    torch.testing.assert_close(features[0], expected[0][0])
