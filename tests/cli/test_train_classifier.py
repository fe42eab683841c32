"""The tools train and test any model that mmengine's runner builds, here a classifier."""
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from cae_mm.checkpoint.files import read_checkpoint
from cae_mm.models import CAEViT

from .conftest import ROOT

CONFIG = """
_base_ = ['{root}/configs/_base_/default_runtime.py']
data_root = 'nowhere'
num_classes = 5
dataset = dict(
    type='CustomDataset', data_root=data_root, data_prefix='pictures',
    pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')])
train_dataloader = dict(
    batch_size=4, num_workers=0, dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'))
val_dataloader = dict(
    batch_size=4, num_workers=0, dataset=dataset,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'))
val_evaluator = dict(type='Accuracy')
val_cfg = dict()
train_cfg = dict(by_epoch=True, max_epochs=2)
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-2))
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, num_classes=num_classes),
    backbone=dict(type='CAEViT', img_size=16, patch_size=8, out_type='avg_featmap',
                  arch=dict(embed_dims=12, num_layers=1, num_heads=1)),
    head=dict(type='LinearClsHead', num_classes=num_classes, in_channels=12, topk=(1,)))
"""


@pytest.fixture
def classifier_config(tmp_path):
    rng = np.random.default_rng(0)
    for name, level in (('dark', 40), ('light', 200)):
        folder = tmp_path / 'pictures' / name
        folder.mkdir(parents=True)
        for i in range(8):
            pixels = level + rng.integers(0, 40, (16, 16, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f'{i}.png')
    config = tmp_path / f'{tmp_path.name}.py'
    config.write_text(CONFIG.format(root=ROOT))
    return config


def test_train_and_test(classifier_config, call_tool, tmp_path):
    work = tmp_path / 'work'
    options = ['--data-root', tmp_path, '--work-dir', work, '--cfg-options', 'num_classes=2']
    call_tool('train.py', classifier_config, *options)
    checkpoint = work / (work / 'last_checkpoint').read_text()
    assert checkpoint.name == 'epoch_2.pth'
    [log] = work.glob('*/*.log')
    assert f'data_root={tmp_path}: 2 places (train_dataloader, val_dataloader)' in log.read_text()
    metrics, predictions = tmp_path / 'metrics.json', tmp_path / 'predictions.pkl'
    call_tool('test.py', classifier_config, checkpoint, '--out', metrics, *options)
    assert json.loads(metrics.read_text()) == {'accuracy/top1': 100.0}
    call_tool('test.py', classifier_config, checkpoint, '--out', predictions, *options)
    assert len(pickle.loads(predictions.read_bytes())) == 16


def test_pretrained_encoder_and_scaled_rate(classifier_config, call_tool, tmp_path):
    encoder = CAEViT(dict(embed_dims=12, num_layers=1, num_heads=1), img_size=16, patch_size=8)
    given = {f'backbone.{name}': value for name, value in encoder.state_dict().items()}
    torch.save(dict(state_dict=given), tmp_path / 'encoder.pth')
    work = tmp_path / 'work'
    call_tool(
        'train.py', classifier_config, '--data-root', tmp_path, '--work-dir', work, '--pretrained',
        tmp_path / 'encoder.pth', '--auto-scale-lr', '--cfg-options', 'num_classes=2',
        'optim_wrapper.accumulative_counts=2', 'optim_wrapper.optimizer.lr=1e-9',
        'auto_scale_lr.base_batch_size=4')
    state = read_checkpoint(work / 'epoch_2.pth')
    assert all(torch.allclose(state['state_dict'][name], value, atol=1e-7)
               for name, value in given.items())
    # A step takes 4 images x 2 accumulated, twice the base.
    assert {group['lr'] for group in state['optimizer']['param_groups']} == {2e-9}
