"""Encoders from configs and checkpoints, measured on a folder."""
import pytest
import torch
from mmengine.config import Config

from cae_mm.evaluation.protocol import load_encoder, measure

CONFIG = Config(dict(model=dict(
    type='ContextAutoencoder', data_preprocessor=dict(type='CAEDataPreprocessor'),
    backbone=dict(type='CAEViT', img_size=16, patch_size=8,
                  arch=dict(embed_dims=16, num_layers=2, num_heads=2)))))


def test_measures_both(folder):
    results = measure(*load_encoder(CONFIG, 'none', 'cpu'), folder, k=(1, 5), probe=True,
                      progress=False)
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
    with pytest.raises(RuntimeError, match='blocks.1.attn.proj.weight'):
        load_encoder(CONFIG, tmp_path / 'part.pth', 'cpu')


def test_splits_of_different_classes(folder, backbone, preprocess):
    (folder / 'val' / 'red').rename(folder / 'val' / 'rot')
    with pytest.raises(ValueError, match='different classes: red, rot'):
        measure(backbone, preprocess, folder, progress=False)
