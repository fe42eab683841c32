"""The two views of one crop against the official transform."""
import json
import random

import numpy as np
import pytest

from cae_mm.models import CAEDataPreprocessor, TeacherFeatures
from cae_mm.models.targets.dalle import map_pixels
from cae_mm.transforms import TwoViewCrop

TOLERANCE = 2e-5


def clip_pixels(images):
    clip = dict(type='TimmViT', name='vit_base_patch16_clip_quickgelu_224', depth=1, embed_dim=64)
    return TeacherFeatures(clip, allow_random=True).normalise(images)


# The target generator maps [0, 1] itself.
SECOND = {'dall-e': map_pixels, 'clip': clip_pixels, 'customized': lambda images: (images - 0.5) / 0.5}


@pytest.fixture
def official(golden):
    entries = json.loads((golden / 'manifest.json').read_text())['entries']
    return entries['augment'], np.load(golden / 'augment.npz')


def make_crop(entry):
    c = entry['constructor']
    return TwoViewCrop(c['input_size'], c['second_input_size'], c['train_interpolation'],
                       c['second_interpolation'], (c['crop_min_size'], c['crop_max_size']))


@pytest.mark.parametrize('flip', [True, False], ids=['flip', 'noflip'])
@pytest.mark.parametrize('name', ['augment'])
def test_views(official, name, flip):
    entry, arrays = official
    views = make_crop(entry).crop(arrays['in/image'], entry['box_i_j_h_w'], flip)
    out = f'out/{"flip" if flip else "noflip"}'
    for key, view in (('img', 'first'), ('target_img', 'second')):
        expected = arrays[f'{out}/{view}_uint8'].transpose(2, 0, 1)
        assert np.array_equal(views[key].numpy(), expected), key

    inputs = dict(images=views['img'][None], target_images=views['target_img'][None])
    norm = {} if entry['constructor']['imagenet_default_mean_and_std'] else dict(
        mean=[127.5] * 3, std=[127.5] * 3)
    batch = CAEDataPreprocessor(**norm)({'inputs': inputs})['inputs']
    second = SECOND[entry['constructor']['discrete_vae_type']](batch['target_images'])[0]
    ours = {'first': batch['images'][0], 'second': second}
    for view, values in ours.items():
        assert np.abs(values.numpy() - arrays[f'{out}/{view}']).max() <= TOLERANCE, view


@pytest.mark.parametrize('name', ['augment'])
def test_box_statistics(official, name):
    entry, arrays = official
    random.seed(0)
    crop, shape, draws = make_crop(entry), arrays['in/image'].shape[:2], 4000
    boxes = np.array([crop.draw_box(*shape) for _ in range(draws)])
    mean, std = arrays['stat/crop_i_j_h_w_mean_std']
    # Mean and standard deviation within five standard errors; the golden ones have their own.
    assert (np.abs(boxes.mean(0) - mean) < 5 * std * np.sqrt(2 / draws)).all()
    assert (np.abs(boxes.std(0) / std - 1) < 5 * np.sqrt(2 / draws)).all()
