"""Decoding, cropping and resizing on the device, by LoadRGBImage(decode='device'): here on a CPU."""
import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from mmengine.optim import build_optim_wrapper

from cae_mm.datasets import ReproducibleDataset
from cae_mm.models import CAEDataPreprocessor
from cae_mm.models.device_views import FILTERS, filter_weights
from cae_mm.transforms import LoadRGBImage
from cae_mm.transforms.crop import resize_pillow
from tests.models.test_cae import build
from tests.transforms.test_loading import picture
from tests.transforms.test_scaled import save

OTHERS = {'progressive.jpg': dict(progressive=True, subsampling=2), 'rgb.jpg': dict(keep_rgb=True),
          'grey.jpg': dict(mode='L'), 'cmyk.jpg': dict(mode='CMYK'), 'other.png': {}}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """JPEG files in each orientation, larger and smaller than the views, and five of other kinds."""
    folder = tmp_path_factory.mktemp('images')
    for orientation in range(1, 9):
        save(folder / f'{orientation}.jpg', (120, 90), orientation=orientation, quality=95)
        save(folder / f'small_{orientation}.jpg', (41, 30), orientation=orientation)
    for name, options in OTHERS.items():
        save(folder / name, (120, 90), **options)
    return folder


def dataset(folder, decode, target_size=16, **crop):
    """Of the pictures with two views, drawn from (seed, epoch, index)."""
    pipeline = [dict(type='LoadRGBImage', decode=decode),
                dict(type='TwoViewCrop', size=32, target_size=target_size, backend='torch', **crop),
                dict(type='BlockMask', grid=4, num_masked=6, min_per_block=2), dict(type='PackViews')]
    return ReproducibleDataset(dict(type='ImageFolder', data_root=str(folder), with_label=False,
                                    pipeline=pipeline))


def batch(folder, decode, epoch=0, **options):
    data = dataset(folder, decode, **options)
    return default_collate([data[epoch * len(data) + index] for index in range(len(data))])


@pytest.mark.parametrize('options', [{}, dict(interpolation='bilinear', target_size=None)])
def test_views_and_masks_are_those_of_the_loader(folder, options):
    flips, preprocess = set(), CAEDataPreprocessor()
    for epoch in range(3):
        ours, theirs = (batch(folder, decode, epoch, **options) for decode in ('device', 'whole'))
        encoded = [crop for crop in ours['inputs']['images'] if 'encoded' in crop]
        assert len(encoded) == 17  # and of the five others four are decoded by the loader
        assert not any(isinstance(value, torch.Tensor) for crop in ours['inputs']['images']
                       for value in crop.values())
        flips |= {(crop.orientation, crop.flip) for crop in encoded}
        with torch.autocast('cpu', torch.bfloat16):  # as in a step of training
            ours = preprocess(ours)['inputs']
        theirs = preprocess(theirs)['inputs']
        assert torch.equal(ours.pop('mask'), theirs.pop('mask')) and ours.keys() == theirs.keys()
        for name, scale in (('images', preprocess.std), ('target_images', 255)):
            assert ours[name].shape == theirs[name].shape and ours[name].dtype == torch.float32
            levels = ((ours[name] - theirs[name]) * scale).abs().flatten(1)
            assert ((levels < 2.01).float().mean(1) > 0.99).all() and levels.mean() < 0.1
    assert len(flips) == 16


@pytest.mark.parametrize('size', [(9, 14), (24, 40), (50, 90)])
@pytest.mark.parametrize('name', FILTERS)
def test_filters_are_those_of_pillow(name, size):
    """On edges of black and white, where they overshoot."""
    image = (np.asarray(picture()) > 127).astype('uint8') * 255
    down, across = (filter_weights([side, 60], length, name)[0, :, :side]
                    for side, length in zip(image.shape, size, strict=False))
    half = (torch.from_numpy(image).permute(2, 0, 1).float() @ across.T).round().clamp(0, 255)
    levels = (down @ half).round().clamp(0, 255) - resize_pillow(image, size, name).float()
    assert levels.abs().max() <= 1 and (levels != 0).float().mean() < 0.01


def test_a_step_has_the_loss_of_the_loader(folder):
    losses = []
    for decode in ('whole', 'device'):
        model = build().train()
        wrapper = build_optim_wrapper(model, dict(optimizer=dict(type='AdamW', lr=1e-3)))
        torch.manual_seed(0)
        losses.append(model.train_step(batch(folder, decode, target_size=None), wrapper)['loss'].item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_a_damaged_file_is_named(folder, tmp_path):
    """The others of its batch are not, and nothing takes its place."""
    for name in ('1.jpg', '2.jpg'):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    data = (folder / '3.jpg').read_bytes()
    (tmp_path / '3.jpg').write_bytes(data[:len(data) // 2])
    with pytest.raises(ValueError, match=r'/3\.jpg cannot be decoded on the cpu .*make_shards.*whole'):
        CAEDataPreprocessor()(batch(tmp_path, 'device'))


def test_a_header_of_another_size_is_named(folder):
    found = batch(folder, 'device')
    crop = next(crop for crop in found['inputs']['images'] if 'encoded' in crop)
    crop.shape = (7, 7)
    with pytest.raises(ValueError, match=f'{crop.path} cannot .*not to .7, 7'):
        CAEDataPreprocessor()(found)


def test_other_values_are_refused():
    with pytest.raises(ValueError, match="'gpu' is not one of .*'device'"):
        LoadRGBImage(decode='gpu')
