"""Configs of a second, pictures of 16 pixels, and how a tool runs in this process."""
import runpy
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
ARCH = dict(embed_dims=24, num_layers=2, num_heads=2)
# Two epochs of 6 steps of 4 pictures, a checkpoint after 4, 8 and 12.
PIXELS = """
_base_ = ['{root}/configs/_base_/default_runtime.py', '{root}/configs/_base_/schedules/cae_pretrain.py',
          '{root}/configs/_base_/datasets/pretrain_small.py']
data_root = '{data}'
decoder = dict(grid_size=4, embed_dims=24, num_heads=2, depth=1)
model = dict(
    type='ContextAutoencoder',
    backbone=dict(type='CAEViT', img_size=16, patch_size=4, drop_path_rate=0.3, arch=dict(**{arch})),
    neck=dict(type='LatentContextualRegressor', in_dims=24, **decoder),
    head=dict(type='CAEDecoder', num_outputs=48, **decoder),
    target_generator=dict(type='PixelTarget', patch_size=4))
del decoder
pipeline = [
    dict(type='LoadRGBImage'), dict(type='TwoViewCrop', size=16, target_size=16),
    dict(type='RandomMask', grid=4, num_masked=8), dict(type='PackViews')]
train_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(dataset=dict(
    data_root=data_root, pipeline=pipeline)))
train_cfg = dict(max_epochs=2)
param_scheduler = dict(warmup_epochs=1)
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(interval=4, by_epoch=False, max_keep_ckpts=2))
"""
ITERS = """
_base_ = './pixels.py'
train_dataloader = dict(sampler=dict(type='EndlessSampler'))
train_cfg = dict(_delete_=True, type='mmpretrain.ResumableIterLoop', max_iters=12)
param_scheduler = dict(_delete_=True, type='PolyLR', power=1.0, eta_min=0., by_epoch=False)
log_processor = dict(by_epoch=False)
"""
TOKENIZER = """
_base_ = './pixels.py'
model = dict(_delete_=True, type='DiscreteVAE', num_codes=16, stem_stride=2, num_groups=2, hidden_dims=8,
             code_dims=8, temperature=(1.0, 1 / 16), anneal=0.5)
pipeline = [
    dict(type='LoadRGBImage'), dict(type='TwoViewCrop', size=16, target_size=16), dict(type='PackViews')]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=pipeline)))
optim_wrapper = dict(_delete_=True, type='mmpretrain.AutocastOptimWrapper',
                     optimizer=dict(type='AdamW', lr=1e-3))
"""
CODES = """
_base_ = './pixels.py'
model = dict(head=dict(num_outputs=16), target_generator=dict(
    _delete_=True, type='DiscreteVAE', num_codes=16, stem_stride=2, num_groups=2, hidden_dims=8,
    code_dims=8, init_cfg=dict(type='Pretrained', checkpoint=None)))
"""
CLASSES = """
_base_ = ['{root}/configs/_base_/datasets/cls_small.py', '{root}/configs/_base_/schedules/cls_finetune.py',
          '{root}/configs/_base_/default_runtime.py']
data_root = '{data}'
num_classes = 2
pretrained = 'none'
data_preprocessor = dict(num_classes=2)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='CAEViT', img_size=16, patch_size=4, out_type='avg_featmap', drop_path_rate=0.1,
                  arch=dict(**{arch})),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=24))
reading = [dict(type='LoadImageFromFile'), dict(type='CenterCrop', crop_size=16), dict(type='PackInputs')]
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(
    dataset=dict(data_root=data_root, pipeline=reading)))
val_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(data_root=data_root, pipeline=reading))
test_dataloader = val_dataloader
del reading
train_cfg = dict(max_epochs=2, val_interval=1)
param_scheduler = dict(warmup_epochs=1)
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(interval=4, by_epoch=False, max_keep_ckpts=2))
"""
SEGMENTS = """
_base_ = ['{root}/configs/seg/linear_cae_vitb_40k_ade20k.py']
data_root = '{data}/ade'
pretrained = 'none'
model = dict(
    backbone=dict(patch_size=4, frozen_stages=2, arch=dict(_delete_=True, **{arch}),
                  init_cfg=None),
    decode_head=dict(in_channels=24, channels=24))
train_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(dataset=dict(data_root=data_root)))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=4, val_interval=4)
param_scheduler = [dict(type='PolyLR', power=1.0, eta_min=0., by_epoch=False)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
"""
CONFIGS = dict(pixels=PIXELS, iters=ITERS, tokenizer=TOKENIZER, codes=CODES, classes=CLASSES,
               segments=SEGMENTS)


# What stands in many places of a config.
OPTIONS = dict(segments=['classes=[one,two]', 'crop_size=[16,16]', 'test_scale=[24,24]'])


def make(folder: Path) -> Path:
    """Write the configs and their data: train/ and val/ of two classes, ade/ with label maps."""
    data, rng = folder / 'data', np.random.default_rng(0)
    for part, number in (('train', 12), ('val', 4)):
        for name in 'ab':
            (data / part / name).mkdir(parents=True)
            for i in range(number):
                coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
                coarse.resize((20, 20)).save(data / part / name / f'{i}.png')
    for part in ('training', 'validation'):
        for kind in ('images', 'annotations'):
            (data / 'ade' / kind / part).mkdir(parents=True)
        for i in range(4):
            picture = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((24, 24))
            picture.save(data / f'ade/images/{part}/{i}.jpg')
            labels = Image.fromarray(rng.integers(0, 3, (6, 6), dtype=np.uint8)).resize((24, 24), 0)
            labels.save(data / f'ade/annotations/{part}/{i}.png')
    for name, text in CONFIGS.items():
        (folder / f'{name}.py').write_text(text.format(root=ROOT, data=data, arch=ARCH))
    return folder


def tool(name: str, *arguments) -> None:
    """Run a tool or a demo as its command does; an exit code of 0 is a return."""
    path = ROOT / (name if '/' in name else f'tools/{name}')
    sys.path.insert(0, str(path.parent))
    sys.argv = [str(path), *map(str, arguments)]
    try:
        runpy.run_path(str(path), run_name='__main__')
    except SystemExit as end:
        if end.code:
            raise
