"""From a checkpoint to its numbers with one command."""
import json
import re
from argparse import Namespace

import numpy as np
import pytest
import torch
from PIL import Image

from cae_mm.evaluation.protocol import read_config
from cae_mm.models import CAEViT

from .conftest import ROOT

CONFIG = """
data_preprocessor = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True, num_classes=6)
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='CAEViT', img_size=16, patch_size=8, out_type='avg_featmap', use_rel_pos_bias=True,
        arch=dict(embed_dims=16, num_layers=2, num_heads=2),
        init_cfg=dict(type='Pretrained', checkpoint='nowhere.pth', prefix='backbone.')),
    head=dict(type='LinearClsHead', num_classes=6, in_channels=16))
"""


@pytest.fixture
def arguments(tmp_path):
    """Config, checkpoint and data: six colours, ten pictures of each for training, four more."""
    rng = np.random.default_rng(0)
    for i, color in enumerate(rng.integers(30, 220, (6, 3))):
        for split, number in (('train', 10), ('val', 4)):
            folder = tmp_path / 'data' / split / f'color{i}'
            folder.mkdir(parents=True)
            for j in range(number):
                image = np.clip(rng.normal(color, 25, (16, 16, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(image).save(folder / f'{j}.png')
    (tmp_path / 'finetune.py').write_text(CONFIG)
    backbone = CAEViT(dict(embed_dims=16, num_layers=2, num_heads=2), 16, 8)
    torch.save({'state_dict': {f'backbone.{name}': value for name, value
                               in backbone.state_dict().items()}}, tmp_path / 'pretrained.pth')
    return [tmp_path / 'finetune.py', tmp_path / 'pretrained.pth', '--data', tmp_path / 'data']


def test_two_commands_share_an_extraction(arguments, call_tool, tmp_path, capsys, monkeypatch):
    options = [*arguments, '--features', tmp_path / 'features', '--out']
    call_tool('knn.py', *options, tmp_path / 'results' / 'knn.json', '--k', 1, 5)
    shown, progress = capsys.readouterr()
    assert re.search(r'features of .*/train: 100%.* 60/60 ', progress)
    results = json.loads((tmp_path / 'results' / 'knn.json').read_text())
    assert results.keys() == {'knn/top1_k1', 'knn/top5_k1', 'knn/top1_k5', 'knn/top5_k5'}
    assert results['knn/top5_k5'] >= results['knn/top1_k5'] > 50
    for name, value in results.items():
        assert re.search(rf'^{name} +{value:.5g}$', shown, re.M)

    monkeypatch.setattr(CAEViT, 'embed', None)  # to extract again would fail
    linear = tmp_path / 'linear.json'
    call_tool('linear_probe.py', *options, linear, '--penalties', '1e-2', '1e-3')
    first = json.loads(linear.read_text())
    assert first.keys() == {'linear/top1', 'linear/top5', 'linear/penalty', 'linear/held_out_0.01',
                            'linear/held_out_0.001'}
    assert first['linear/top1'] > 60
    shown, progress = capsys.readouterr()
    assert 'features of' not in progress and 'linear/held_out_0.001' in shown
    torch.rand(1)
    call_tool('linear_probe.py', *options, linear, '--penalties', '1e-2', '1e-3')
    assert json.loads(linear.read_text()) == first


def test_two_processes_measure_as_one(arguments, call_tool, run_tool, tmp_path, monkeypatch):
    options = [*arguments, '--k', 1, 5, '--linear-probe', '--penalties', 1e-2, '--batch-size', 16, '--out']
    call_tool('knn.py', *options, tmp_path / 'one.json')
    finished = run_tool('dist_run.sh', ROOT / 'tools/knn.py', 2, *options, tmp_path / 'two.json',
                        '--features', tmp_path / 'features', '--right', tmp_path / 'right.json')
    assert finished.returncode == 0, finished.stderr
    right = json.loads((tmp_path / 'right.json').read_text())
    one, two = (json.loads((tmp_path / f'{name}.json').read_text()) for name in ('one', 'two'))
    assert {name: value for name, value in two.items() if 'knn' in name} == {
        name: value for name, value in one.items() if 'knn' in name}
    for name, digits in right.items():
        assert two[name] == pytest.approx(100 * digits.count('1') / len(digits))
    assert right.keys() == {'knn/top1_k1', 'knn/top1_k5', 'linear/top1'}
    assert two == pytest.approx(one, abs=100 / 12)  # of the probe, one of 12 held-out images
    assert finished.stdout.count('knn/top1_k5') == 1  # only the first process tells

    # What two processes have kept serves one; to extract again would fail.
    monkeypatch.setattr(CAEViT, 'embed', None)
    call_tool('knn.py', *options, tmp_path / 'kept.json', '--features', tmp_path / 'features')
    assert json.loads((tmp_path / 'kept.json').read_text()) == one


def test_features_of_another_checkpoint(arguments, call_tool, tmp_path):
    options = ['--features', tmp_path / 'features', '--k', '1']
    call_tool('knn.py', *arguments, *options)
    with pytest.raises(ValueError, match='weights of the encoder: .* Choose another directory'):
        call_tool('knn.py', arguments[0], 'none', *arguments[2:], *options)


def test_a_weaker_penalty_may_be_better(arguments, call_tool, capsys):
    call_tool('linear_probe.py', *arguments, '--penalties', '10', '0.01')
    assert 'try --penalties with weaker ones' in capsys.readouterr().out
    call_tool('linear_probe.py', *arguments, '--penalties', '0.01')
    assert 'weakest penalty' not in capsys.readouterr().out


@pytest.mark.parametrize('change, error, message', [
    (lambda data: (data / 'val' / 'color0').rename(data / 'val' / 'other'), ValueError,
     'train and val have different classes: color0, other'),
    (lambda data: (data / 'train' / 'empty').mkdir(), ValueError, 'no images of class empty'),
    (lambda data: (data / 'val').rename(data / 'test'), FileNotFoundError,
     'there is no folder .*val: labelled data has'),
])
def test_bad_data(arguments, call_tool, tmp_path, change, error, message):
    change(tmp_path / 'data')
    with pytest.raises(error, match=message):
        call_tool('knn.py', *arguments)


@pytest.mark.parametrize('options, error, message', [
    (['--k', '61'], ValueError, r'k=\[61\] with 60 training images: choose k in 1\.\.60'),
    (['--k', '0'], ValueError, '--k: 0 is no whole number from 1 on'),
    (['--penalties', '1', 'nan'], ValueError, '--penalties: nan is no number from 0 on'),
    (['--out', 'pretrained.pth/knn.json'], ValueError, '--out: pretrained.pth/knn.json cannot be written'),
    (['--out', 'data'], ValueError, '--out: data cannot be written'),
])
def test_bad_options_before_any_work(arguments, call_tool, tmp_path, monkeypatch, options, error,
                                     message):
    monkeypatch.setattr(CAEViT, 'embed', None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        call_tool('knn.py', *arguments, *options)


def test_neither_a_config_nor_a_model(arguments, call_tool):
    with pytest.raises(FileNotFoundError, match='no model cae_vitx, .*cae_vitb.*no config cae_vitx'):
        call_tool('knn.py', 'cae_vitx', *arguments[1:])


def test_options_of_a_config_with_a_model(arguments, call_tool):
    with pytest.raises(ValueError, match='--cfg-options change a config, and cae_vitb is a model'):
        call_tool('knn.py', 'cae_vitb', *arguments[1:], '--cfg-options', 'model.backbone.img_size=32')


def test_config_by_its_name():
    args = Namespace(config='linear_cae_vits_90e', cfg_options={'num_classes': 7})
    cfg = read_config(args)
    assert cfg.model.backbone.arch == 'small' and cfg.num_classes == 7
