"""mmpretrain's, mmdet's and mmseg's own tools take our configs, from any folder, and so does mim."""
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

from cae_mm import __main__ as siblings
from cae_mm.models import CAEViT

from .conftest import ROOT

# What a user writes: the config it is based on, and what is different.
CONFIGS = dict(
    mmpretrain=('cls/finetune_cae_vitt_demo', 'max_epochs=1', 'epoch_1.pth', 'accuracy/top1'),
    mmdet=('det/mask_rcnn_cae_vitt_demo', 'max_epochs=1, val_interval=1', 'epoch_1.pth', 'bbox_mAP'),
    mmseg=('seg/upernet_cae_vitt_demo', 'max_iters=1, val_interval=1', 'iter_1.pth', 'mIoU'))
OWN = """
_base_ = {base}
train_dataloader = dict(batch_size=2)
train_cfg = dict({length})
default_hooks = dict(checkpoint=dict(interval=1))
work_dir = 'trained'
"""


@pytest.fixture
def here(scenes, tmp_path, monkeypatch):
    """The working directory of a user who has no checkout but the demo's data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'demo_out/pretrain').mkdir(parents=True)
    encoder = CAEViT(dict(embed_dims=128, num_layers=6, num_heads=4), img_size=64, patch_size=8)
    torch.save({f'backbone.{name}': value for name, value in encoder.state_dict().items()},
               'demo_out/pretrain/epoch_14.pth')
    for split in ('train', 'val'):
        for label in '0123456789':
            folder = tmp_path / 'demo_out/data/imagenet' / split / label
            folder.mkdir(parents=True)
            Image.fromarray(np.full((64, 64, 3), 99, np.uint8)).save(folder / 'a.png')
    for layout in ('coco', 'ade'):
        (tmp_path / 'demo_out/data' / layout).symlink_to(scenes / layout)
    return tmp_path


@pytest.fixture
def call(monkeypatch):
    """A function that runs python -m cae_mm, in this process."""
    def run(*words):
        monkeypatch.setattr(sys, 'argv', ['cae_mm', *words])
        monkeypatch.setattr(sys, 'path', [*sys.path])
        siblings.main()

    return run


def write_config(package, base):
    name, length, *_ = CONFIGS[package]
    Path('own.py').write_text(OWN.format(base=base.format(name=name, root=ROOT), length=length))


def run(*command):
    """Run a command of a user whose environment has cae_mm."""
    ended = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={
        **os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''})
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def tool(package, name):
    return Path(find_spec(package).origin).parent / f'.mim/tools/{name}.py'


@pytest.mark.parametrize('package, base', [
    ('mmpretrain', "__import__('cae_mm') and 'cae_mm::{name}.py'"),
    ('mmdet', "'{root}/configs/{name}.py'"),
    ('mmseg', "__import__('cae_mm') and 'cae_mm::{name}.py'")])
def test_train_and_test(package, base, here, call, capfd):
    """Train in a process where nothing else imports cae_mm, then test where cae_mm does it first."""
    *_, checkpoint, metric = CONFIGS[package]
    write_config(package, base)
    assert metric in run(sys.executable, '-W', 'ignore', tool(package, 'train'), 'own.py')
    write_config(package, "'cae_mm::{name}.py'")
    call(package, 'test', 'own.py', f'trained/{checkpoint}')
    assert metric in capfd.readouterr().out


@pytest.mark.parametrize('package', ['mmdet', 'mmseg'])
def test_what_they_draw(package, here, call):
    write_config(package, "'cae_mm::{name}.py'")
    cfg = Config.fromfile('own.py')
    with DefaultScope.overwrite_default_scope(package):
        torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), 'model.pth')
    call(package, 'test', 'own.py', 'model.pth', '--show-dir', 'drawn')
    # Without a runner, which would give one, the visualizer needs a name.
    call(package, 'analysis_tools/browse_dataset', 'own.py', '--output-dir', 'browsed', '--not-show',
         '--cfg-options', f'visualizer.name={here.name}')
    for folder in ('drawn', 'browsed'):
        assert len([*here.rglob(f'{folder}/**/*.jpg'), *here.rglob(f'{folder}/**/*.png')]) >= 4


@pytest.mark.slow
@pytest.mark.parametrize('package', CONFIGS)
def test_mim(package, here):
    pytest.importorskip('mim')
    *_, checkpoint, metric = CONFIGS[package]
    write_config(package, "__import__('cae_mm') and 'cae_mm::{name}.py'")
    named = {'mmdet': 'mmdetection'}.get(package, package)  # mmdet might be mmdet3d
    mim = [sys.executable, '-W', 'ignore', '-m', 'mim']
    assert metric in run(*mim, 'train', named, 'own.py')
    if package == 'mmdet':  # whose test.py cannot be imported beside transformers 5: docs/compatibility.md
        return
    assert metric in run(*mim, 'test', named, 'own.py', '--checkpoint', f'trained/{checkpoint}')


@pytest.mark.parametrize('words, message', [
    ([], 'usage: python -m cae_mm PACKAGE TOOL'),
    (['mmdet4', 'train'], 'there is no package mmdet4: mmpretrain, mmdet and mmseg'),
    (['mmseg', 'trian'], r'there is no .*/mmseg/\.mim/tools/trian\.py')])
def test_a_tool_that_is_not_there(words, message, call):
    with pytest.raises(SystemExit, match=message):
        call(*words)
