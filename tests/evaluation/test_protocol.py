"""Encoders from configs and checkpoints, measured on a folder."""
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from cae_mm.evaluation.features import extract_features, labelled_loader
from cae_mm.evaluation.protocol import load_encoder, measure, prepare
from cae_mm.models import CAEDataPreprocessor, vit

CONFIGS = Path(__file__).parents[2] / 'configs'
SMALL = dict(arch=dict(embed_dims=16, num_layers=2, num_heads=2), img_size=16, patch_size=8)
CONFIG = Config(dict(model=dict(
    type='ContextAutoencoder', data_preprocessor=dict(type='CAEDataPreprocessor'),
    backbone=dict(type='CAEViT', img_size=16, patch_size=8,
                  arch=dict(embed_dims=16, num_layers=2, num_heads=2)))))


def test_measures_both(folder):
    encoder = load_encoder(CONFIG, 'none', 'cpu')
    results = measure(*encoder, prepare(encoder[0], folder), k=(1, 5), probe=True, progress=False)
    assert results['knn/top1_k5'] > 60  # three colours: any encoder sees them
    assert results['linear/top1'] > 80


def test_random_encoder_says_so_and_repeats(capsys):
    first, _ = load_encoder(CONFIG, 'none', 'cpu', seed=3)
    second, _ = load_encoder(CONFIG, 'none', 'cpu', seed=3)
    assert 'THE ENCODER IS RANDOM' in capsys.readouterr().out
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))


def test_checkpoint_is_loaded_whole(tmp_path, backbone):
    state = {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
    torch.save({'state_dict': state | {'head.weight': torch.zeros(1)}}, tmp_path / 'whole.pth')
    loaded, _ = load_encoder(CONFIG, tmp_path / 'whole.pth', 'cpu')
    assert all(map(torch.equal, loaded.state_dict().values(), backbone.state_dict().values()))
    del state['backbone.blocks.1.attn.proj.weight']
    torch.save({'state_dict': state}, tmp_path / 'part.pth')
    with pytest.raises((RuntimeError, ValueError), match='blocks.1.attn.proj.weight'):
        load_encoder(CONFIG, tmp_path / 'part.pth', 'cpu')


def small(path):
    """A config of the repository with its own settings around an encoder of two blocks."""
    cfg = Config.fromfile(path)
    cfg.model.backbone.update(SMALL)
    if cfg.model.backbone.get('frozen_stages', -1) > 0:
        cfg.model.backbone.frozen_stages = 2
    return cfg


@pytest.mark.parametrize('path', sorted([*CONFIGS.glob('pretrain/*.py'), *CONFIGS.glob('cls/*.py')]),
                         ids=lambda path: path.stem)
def test_a_pretrained_checkpoint_with_every_config(path, folder, backbone, tmp_path):
    checkpoint = tmp_path / 'pretrained.pth'
    backbone.norm.bias.data += torch.arange(16) / 10
    backbone.norm.weight.data *= 1 + torch.arange(16) / 10
    torch.save({'state_dict': {f'backbone.{name}': value
                               for name, value in backbone.state_dict().items()}}, checkpoint)
    cfg = small(path)
    encoder, preprocess = load_encoder(cfg, checkpoint, 'cpu')
    loader = labelled_loader(folder / 'val', 16)
    [(batch, _)] = loader
    with torch.no_grad():
        backbone.out_type = cfg.model.backbone.get('out_type', 'raw')
        expected = backbone.eval()(CAEDataPreprocessor()(batch)['inputs'])[-1]
    feature = 'cls' if backbone.out_type == 'cls_token' else 'avg'
    if backbone.out_type == 'raw':
        expected = expected[:, 1:].mean(1)
    found, _ = extract_features(encoder, loader, preprocess, feature, progress=False)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('name', ['finetune_cae_vits_100e', 'linear_cae_vits_90e'])
def test_a_classifier_sees_the_same_pixels(name, folder, tmp_path):
    """mmpretrain's classifier reads BGR files; the features are those that its head gets."""
    cfg = small(CONFIGS / 'cls' / f'{name}.py')
    cfg.model.backbone.init_cfg = None
    classifier = MODELS.build(dict(
        type='mmpretrain.ImageClassifier', backbone=dict(cfg.model.backbone),
        data_preprocessor=cfg.model.get('data_preprocessor') or cfg.data_preprocessor)).eval()
    checkpoint = tmp_path / 'epoch_1.pth'
    with torch.no_grad():
        for block in classifier.backbone.blocks:
            if block.attn.rel_pos is not None:
                block.attn.rel_pos.relative_position_bias_table.normal_()
    torch.save({'state_dict': classifier.state_dict()}, checkpoint)
    files = sorted((folder / 'val').rglob('*.png'))
    images = torch.from_numpy(np.stack([mmcv.imread(path) for path in files])).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = classifier.extract_feat(
            classifier.data_preprocessor({'inputs': images})['inputs'], stage='backbone')[-1]
    encoder, preprocess = load_encoder(cfg, checkpoint, 'cpu')
    found, _ = extract_features(encoder, labelled_loader(folder / 'val', 16), preprocess,
                                'cls' if 'linear' in name else 'avg', progress=False)
    torch.testing.assert_close(found, expected)


def test_other_pixels_than_the_encoder_knows_are_refused(tmp_path):
    encoder, _ = load_encoder(CONFIG, 'none', 'cpu')
    path = tmp_path / 'whole.pth'
    torch.save(dict(state_dict=encoder.state_dict(), meta=dict(cae_mm=dict(mean=[127.5] * 3))), path)
    with pytest.raises(RuntimeError, match=r'mean=\[127.5, 127.5, 127.5\] in the file, \[123.675'):
        load_encoder(CONFIG, path, 'cpu')


def test_a_name_in_place_of_a_config(monkeypatch):
    """The widths of the named encoders are too large for a quick test: a small one takes a name."""
    monkeypatch.setitem(vit.ARCHITECTURES, 'tiny', (16, 2, 2))
    encoder, preprocess = load_encoder('cae_vitt', 'none', 'cpu')
    assert encoder.embed_dims == 16 and preprocess.std[0, 0, 0] == pytest.approx(58.395)


@pytest.mark.parametrize('model, message', [
    (dict(type='DiscreteVAE'), 'no backbone, not CAEViT'),
    (dict(type='ImageClassifier', backbone=dict(type='VisionTransformer')), 'VisionTransformer, not'),
    (dict(CONFIG.model, data_preprocessor=dict(num_classes=3)), 'does not normalise'),
])
def test_config_of_something_else(model, message):
    with pytest.raises(ValueError, match=message):
        load_encoder(Config(dict(model=model)), 'none', 'cpu')


@pytest.mark.parametrize('settings, message', [
    (dict(k=(10, 40)), r'k=\(10, 40\) with 36 training images: choose k in 1..36'),
    (dict(feature='max'), "feature='max' is not one of avg, cls"),
])
def test_settings_are_checked_before_any_work(folder, backbone, settings, message):
    with pytest.raises(ValueError, match=message):
        prepare(backbone, folder, **settings)


def test_splits_of_different_classes(folder, backbone):
    (folder / 'val' / 'red').rename(folder / 'val' / 'rot')
    with pytest.raises(ValueError, match='different classes: red, rot'):
        prepare(backbone, folder)


def test_learning_from_a_few(folder):
    encoder = load_encoder(CONFIG, 'none', 'cpu')
    loaders = prepare(encoder[0], folder, k=(1, 5), few=dict(shots=3, shots_seed=1))
    assert [len(loader.dataset) for loader in loaders.values()] == [9, 18]
    results = measure(*encoder, loaders, k=(1, 5), probe=True, progress=False)
    assert results['knn/top1_k5'] > 60
    with pytest.raises(ValueError, match='k=.*with 9 training images'):
        prepare(encoder[0], folder, k=(10,), few=dict(shots=3))
