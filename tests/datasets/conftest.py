"""Folders of small images, some of them broken."""
import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def image_folder(tmp_path):
    """A function that writes ``count`` images, those of ``bad`` truncated, and gives the folder."""
    def make(count, bad=()):
        folder = tmp_path / 'images'
        generator = np.random.default_rng(0)
        for number in range(count):
            path = folder / f'class{number % 2}' / f'{number:03}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 255, (24, 20, 3), np.uint8)).save(path)
            if number in bad:
                path.write_bytes(path.read_bytes()[:100])
        return folder
    return make


@pytest.fixture
def config():
    """A function from a folder to the config of a dataset with the whole pipeline."""
    def make(folder, **kwargs):
        pipeline = [
            dict(type='LoadRGBImage'), dict(type='TwoViewCrop', size=16, target_size=8),
            dict(type='BlockMask', grid=4, num_masked=8, min_per_block=2), dict(type='PackViews')]
        return dict(type='CustomDataset', data_root=str(folder), pipeline=pipeline,
                    **dict(dict(with_label=False), **kwargs))
    return make
