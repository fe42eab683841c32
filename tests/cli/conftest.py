"""Configs of a few seconds: CAE on pictures of 16 x 16, Mask R-CNN and UperNet on scenes of digits."""
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from cae_mm.models import CAEViT
from demo import make_demo_data as demo

ROOT = Path(__file__).parents[2]
CONFIG = """
_base_ = ['{root}/configs/_base_/default_runtime.py',
          '{root}/configs/_base_/schedules/cae_pretrain.py']
custom_imports = dict(imports=['cae_mm', 'interruption'], allow_failed_imports=False)
data_root = '{data}'
model = dict(
    type='ContextAutoencoder',
    backbone=dict(type='CAEViT', img_size=16, patch_size=4, drop_path_rate=0.3,
                  arch=dict(embed_dims=24, num_layers=3, num_heads=2)),
    neck=dict(type='LatentContextualRegressor', grid_size=4, in_dims=24, embed_dims=24,
              num_heads=2, depth=1),
    head=dict(type='CAEDecoder', grid_size=4, num_outputs=48, embed_dims=24, num_heads=2, depth=1),
    target_generator=dict(type='PixelTarget', patch_size=4))
train_dataloader = dict(
    batch_size=4, num_workers=0, drop_last=True,
    sampler=dict(type='EpochSampler'),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='ReproducibleDataset', dataset=dict(
        type='CustomDataset', data_root=data_root, with_label=False, pipeline=[
            dict(type='LoadRGBImage'), dict(type='TwoViewCrop', size=16),
            dict(type='RandomMask', grid=4, num_masked=8), dict(type='PackViews')])))
train_cfg = dict(max_epochs=2)
param_scheduler = dict(warmup_epochs=1)
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(interval=5, by_epoch=False, max_keep_ckpts=1))
"""
# Running statistics that do not move: several processes on CPUs do not share them.
NORM = "dict(type='SyncBN', momentum=0.)"
ENCODER = dict(arch=dict(embed_dims=24, num_layers=4, num_heads=2), img_size=64, patch_size=8)
DETECTOR = """
_base_ = ['{root}/configs/det/mask_rcnn_cae_vitb_1x_coco.py']
backbone = dict(out_indices=(0, 1, 2, 3), **{encoder})
backbone['arch']['_delete_'] = True
model = dict(
    backbone=backbone,
    neck=[
        dict(type='mmpretrain.ViTFeaturePyramid', in_channels=24, norm_cfg={norm}),
        dict(type='FPN', in_channels=[24] * 4, out_channels=32, num_outs=5)],
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32),
        bbox_head=dict(num_shared_convs=1, in_channels=32, conv_out_channels=32, fc_out_channels=32,
                       norm_cfg={norm}),
        mask_roi_extractor=dict(out_channels=32),
        mask_head=dict(num_convs=1, in_channels=32, conv_out_channels=32)))
train_dataloader = dict(batch_size=2, num_workers=0)
val_dataloader = dict(num_workers=0)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=1))
"""
SEGMENTOR = """
_base_ = ['{root}/configs/seg/upernet_cae_vitb_160k_ade20k.py']
backbone = dict(out_indices=(0, 1, 2, 3), **{encoder})
backbone['arch']['_delete_'] = True
model = dict(
    backbone=backbone, neck=dict(in_channels=24, norm_cfg={norm}),
    decode_head=dict(in_channels=[24] * 4, channels=24, norm_cfg={norm}),
    auxiliary_head=dict(in_channels=24, channels=24, norm_cfg={norm}))
train_dataloader = dict(num_workers=0)
val_dataloader = dict(num_workers=0)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=4, val_interval=4)
param_scheduler = [dict(type='LinearLR', start_factor=1e-6, end=5, by_epoch=False)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
"""
INTERRUPTION = '''
import os
import signal

from cae_mm.engine import loops

replace, seed_iteration = os.replace, loops.seed_iteration
if 'SIGINT_AT' in os.environ:
    os.setpgrp()


def replace_or_die(source, target):
    """Die where the checkpoint of KILL_AT is written but does not have its name yet."""
    if os.path.basename(target) == os.environ.get('KILL_AT'):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)


def seed_and_send(seed, iteration):
    """Send a signal in a step: to all processes of the group, as a terminal does, or to rank 1 alone."""
    seed_iteration(seed, iteration)
    if str(iteration + 1) == os.environ.get('SIGINT_AT'):
        os.killpg(0, signal.SIGINT)
    if str(iteration + 1) == os.environ.get('SIGTERM_AT') and os.environ['RANK'] == '1':
        os.kill(os.getpid(), signal.SIGTERM)


os.replace, loops.seed_iteration = replace_or_die, seed_and_send
'''


@pytest.fixture
def toy_config(tmp_path):
    """Path of the config; its pictures are made beside it."""
    data = tmp_path / 'pictures'
    data.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((20, 20)).save(data / f'{i:02d}.png')
    (tmp_path / 'interruption.py').write_text(INTERRUPTION)
    # mmengine keeps its loggers by the name of the config.
    config = tmp_path / f'{tmp_path.name}.py'
    config.write_text(CONFIG.format(root=ROOT, data=data))
    return config


@pytest.fixture
def run_tool(tmp_path):
    """A function that runs a file of tools/ as a command and returns the finished process."""

    def run(tool, *arguments, seconds=300, **environment):
        command = [sys.executable] if tool.endswith('.py') else ['bash']
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
        python_path = os.pathsep.join([str(ROOT), str(tmp_path)])
        return subprocess.run(
            [*command, str(ROOT / 'tools' / tool), *map(str, arguments)], text=True, cwd=tmp_path,
            capture_output=True, timeout=seconds, env={
                **os.environ, 'PATH': path, 'PYTHONPATH': python_path, 'OMP_NUM_THREADS': '1',
                'CUDA_VISIBLE_DEVICES': '', 'PYTHON': sys.executable, **environment})

    return run


@pytest.fixture
def call_tool(tmp_path, monkeypatch, forget_runners):
    """A function that runs the ``main`` of a file of tools/ in this process, which is faster."""

    def call(tool, *arguments):
        forget_runners()  # as a process of its own
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv('OMP_NUM_THREADS', '1')
        torch.set_num_threads(1)  # as the commands: sums depend on the number of threads
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
        runpy.run_path(str(ROOT / 'tools' / tool))['main']()

    threads = torch.get_num_threads()
    yield call
    torch.set_num_threads(threads)


@pytest.fixture(scope='session')
def scenes(tmp_path_factory):
    """A directory with four training and four validation pictures in COCO's and in ADE20K's layout."""
    root, rng = tmp_path_factory.mktemp('scenes'), np.random.default_rng(0)
    scans, photographs = demo.load_scans(0.2), [np.full((128, 128, 3), 90, np.uint8)]
    for split in ('train', 'val'):
        drawn = [demo.make_scene(*scans[split], photographs, rng) for _ in range(4)]
        demo.write_coco(root / 'coco', split, drawn)
        demo.write_ade(root / 'ade', split, drawn)
    return root


@pytest.fixture(params=['det', 'seg'])
def dense(request, scenes, tmp_path, monkeypatch):
    """Path of the config, the options that fit it to the pictures, and an encoder with its file."""
    monkeypatch.setattr(Config, 'pretty_text', '')  # logging it takes longer than the training
    det = request.param == 'det'
    config = tmp_path / f'{tmp_path.name}.py'
    config.write_text((DETECTOR if det else SEGMENTOR).format(root=ROOT, encoder=ENCODER, norm=NORM))
    encoder = {f'backbone.{name}': value for name, value in CAEViT(**ENCODER).state_dict().items()}
    torch.save(dict(state_dict=encoder), tmp_path / 'encoder.pth')
    data = scenes / ('coco' if det else 'ade')
    names = data / ('annotations/instances_train2017.json' if det else 'classes.txt')
    options = ['--data-root', data, '--cfg-options', f'classes={names}', *(
        ['train_scales=[(128,128)]', 'crop_scales=[(160,160)]', 'crop_size=(48,96)',
         'test_scale=(128,128)'] if det else ['crop_size=(64,64)', 'test_scale=(128,128)'])]
    return config, options, encoder
