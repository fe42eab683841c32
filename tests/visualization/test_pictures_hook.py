"""Pictures in the middle of a training."""
import random

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import RUNNERS
from PIL import Image

from cae_mm.visualization import PicturesHook, pictures_hook

SIZES = dict(grid_size=4, embed_dims=24, num_heads=2, depth=1)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / 'pictures').mkdir()
    for i in range(12):
        picture = Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8))
        picture.save(tmp_path / f'pictures/{i:02}.png')
    return tmp_path / 'pictures'


@pytest.fixture
def train(tmp_path, folder):
    """A function that pre-trains for three epochs, and gives the weights and the drawings by name."""
    def run(name, **hook):
        cfg = Config(dict(
            work_dir=str(tmp_path / name), experiment_name=f'{name}_{tmp_path.name}',
            default_scope='mmpretrain', randomness=dict(seed=0), model=dict(
                type='ContextAutoencoder',
                backbone=dict(type='CAEViT', img_size=16, patch_size=4, drop_path_rate=0.3,
                              arch=dict(embed_dims=24, num_layers=3, num_heads=2)),
                neck=dict(type='LatentContextualRegressor', **SIZES),
                head=dict(type='CAEDecoder', num_outputs=48, **SIZES),
                target_generator=dict(type='PixelTarget', patch_size=4)),
            train_dataloader=dict(
                batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
                collate_fn=dict(type='default_collate'), dataset=dict(
                    type='ImageFolder', data_root=str(folder), with_label=False, pipeline=[
                        dict(type='LoadRGBImage'), dict(type='TwoViewCrop', size=16),
                        dict(type='RandomMask', grid=4, num_masked=8), dict(type='PackViews')])),
            train_cfg=hook.pop('loop', dict(by_epoch=True, max_epochs=3)),
            custom_hooks=[dict(type='PicturesHook', **hook)] if hook else [], optim_wrapper=dict(
                optimizer=dict(type='AdamW', lr=1e-3)),
            visualizer=dict(type='Visualizer', vis_backends=[dict(type='LogBackend')])))
        runner = RUNNERS.get('Runner').from_cfg(cfg)
        runner.train()
        drawn = {path.stem: np.asarray(Image.open(path)) for path in
                 (tmp_path / name).glob('*/vis_data/vis_image/*.png')}
        log = ''.join(path.read_text() for path in (tmp_path / name).glob('*/*.log'))
        return runner.model.state_dict(), drawn, log
    return run


def equal(weights, others):
    return all(torch.equal(value, others[name]) for name, value in weights.items())


def test_it_draws_and_changes_nothing(train, folder):
    plain, nothing, _ = train('plain')
    weights, drawn, _ = train('hooked', images=str(folder), interval=2, num=3)
    assert not nothing and equal(weights, plain)
    names = 'attention', 'reconstruction'
    assert drawn.keys() == {f'{name}_{epoch}' for name in names for epoch in (2, 3)}
    for name in names:
        early, late = drawn[f'{name}_2'], drawn[f'{name}_3']
        assert early.shape == late.shape and not np.array_equal(early, late)
    # The first two columns, picture and mask, stay: the pictures and masks are the same each time.
    shown = drawn['reconstruction_2'].shape[1] * 2 // 5
    assert np.array_equal(drawn['reconstruction_2'][:, :shown], drawn['reconstruction_3'][:, :shown])


def test_a_drawing_that_fails_is_a_warning(train, folder, monkeypatch):
    monkeypatch.setattr(pictures_hook, 'figure_of', lambda *content: 1 / 0)
    weights, drawn, log = train('failing', images=[str(folder / '00.png')])
    assert not drawn and 'Epoch 3: no pictures, the training goes on: ZeroDivisionError' in log
    assert equal(weights, train('plain')[0])


def test_mistakes_before_the_training(train, folder):
    with pytest.raises(ValueError, match='interval=0'):
        PicturesHook('nowhere', interval=0)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        train('wrong', images='nowhere')
    with pytest.raises(ValueError, match='counts iterations: take default_hooks.visualization.draw=True'):
        train('iterations', loop=dict(type='IterBasedTrainLoop', max_iters=2), images=str(folder))


def test_random_numbers_are_those_of_before():
    random.seed(0)
    first = random.random(), np.random.rand(), torch.rand(1)
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    with pytest.raises(KeyError), pictures_hook.own_numbers(3):
        inside = random.random(), np.random.rand(), torch.rand(1)
        raise KeyError
    assert inside != first and (random.random(), np.random.rand(), torch.rand(1)) == expected
