"""A labelled folder, and an encoder small enough for tests."""
import gc

import numpy as np
import pytest
from mmpretrain.registry import MODELS
from PIL import Image

import cae_mm  # noqa: F401

COLORS = {'blue': (0, 0, 200), 'green': (0, 200, 0), 'red': (200, 0, 0)}


@pytest.fixture(scope='session', autouse=True)
def quick_collections():
    """Datasets collect garbage while they are built: spare them the packages' objects."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def folder(tmp_path):
    """train/ and val/ with 12 and 6 noisy pictures of each of three colours, 16 x 16 pixels."""
    rng = np.random.default_rng(0)
    for split, number in (('train', 12), ('val', 6)):
        for name, color in COLORS.items():
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(number):
                image = np.clip(rng.normal(color, 40, (16, 16, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(image).save(tmp_path / split / name / f'{i}.png')
    return tmp_path


@pytest.fixture
def backbone():
    """A CAEViT of two blocks for 16 x 16 pixels."""
    return MODELS.build(dict(
        type='mmpretrain.CAEViT', img_size=16, patch_size=8, drop_path_rate=0.5,
        arch=dict(embed_dims=16, num_layers=2, num_heads=2)))


@pytest.fixture
def preprocess():
    """The data preprocessor of pre-training."""
    return MODELS.build(dict(type='mmpretrain.CAEDataPreprocessor'))
