"""JPEG files that are decoded at the scale that their crop needs: LoadRGBImage(decode='scaled')."""
import random

import numpy as np
import pytest
import torch
from PIL import Image

from cae_mm.datasets import ReproducibleDataset
from cae_mm.transforms import LoadRGBImage, TwoViewCrop, crop
from tests.transforms.test_loading import BOMBS

KINDS = {'rgb': ('RGB', {}), 'grey': ('L', {}), 'cmyk': ('CMYK', {}),
         'progressive': ('RGB', dict(progressive=True, subsampling=2))}


def save(path, size=(401, 299), mode='RGB', orientation=1, **options):
    """Write a picture with something to see in each corner, of odd sides."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    exif = Image.Exif()
    if orientation:
        exif[0x112] = orientation
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode).save(
        path, exif=exif, **options)
    return str(path)


def views(path, seed, decode, sizes=(28, 14)):
    random.seed(seed)
    torch.manual_seed(seed)
    found = TwoViewCrop(*sizes, backend='torch')(LoadRGBImage(decode=decode)({'img_path': path}))
    assert 'encoded' not in found and 'load_error' not in found
    return torch.cat([found['img'].flatten(), found['target_img'].flatten()]).short(), random.random()


@pytest.mark.parametrize('kind', [*KINDS, *range(2, 9)])
def test_the_same_box_with_fewer_pixels(tmp_path, kind, monkeypatch):
    """The difference is that of less than two of these pixels, also where EXIF turns the picture."""
    mode, options = KINDS.get(kind, ('RGB', dict(orientation=kind)))
    path, shrinks, decode = save(tmp_path / 'x.jpg', mode=mode, **options), [], crop.decode_rgb
    monkeypatch.setattr(crop, 'decode_rgb', lambda data, n: shrinks.append(n) or decode(data, n))
    pairs = [(views(path, seed, 'scaled'), views(path, seed, 'whole')) for seed in range(12)]
    assert {8, 4} <= {*shrinks}
    assert all(ours[1] == theirs[1] for ours, theirs in pairs)  # as many random numbers are drawn
    levels = torch.stack([ours[0] - theirs[0] for ours, theirs in pairs]).abs().float()
    assert 0 < levels.mean() < 5 and levels.mean(1).max() < 15 and (levels <= 2).float().mean() > 0.4
    other = torch.stack([pairs[0][0][0] - theirs[0] for _, theirs in pairs[1:]]).abs().float()
    assert other.mean() > 20  # of another box


@pytest.mark.parametrize('kind', [*KINDS, 6])
def test_nothing_changes_where_all_pixels_are_needed(tmp_path, kind):
    mode, options = KINDS.get(kind, ('RGB', dict(orientation=kind)))
    paths = [save(tmp_path / 'x.jpg', (40, 30), mode, **options), save(tmp_path / 'x.png')]
    for path in paths:
        for seed in range(4):
            ours, theirs = (views(path, seed, decode, (24, 12)) for decode in ('scaled', 'whole'))
            assert torch.equal(ours[0], theirs[0]) and ours[1] == theirs[1]


def test_xmp_is_left_to_the_whole_decoder(tmp_path):
    """Pillow alone reads an orientation there: the box would be that of another shape."""
    path = save(tmp_path / 'x.jpg', orientation=None, xmp=b'<x tiff:Orientation="6"/>')
    for seed in range(4):
        ours, theirs = (views(path, seed, decode)[0] for decode in ('scaled', 'whole'))
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize('decode', ['scaled', 'device'])
@pytest.mark.parametrize('kind', ['jpeg', 'scans'])
def test_bombs_are_refused_by_their_header(tmp_path, kind, decode):
    (tmp_path / 'x.jpg').write_bytes(BOMBS[kind][0])
    info = {'img_path': str(tmp_path / 'x.jpg')}
    assert LoadRGBImage(decode=decode)(info) is None and 'load_error' in info


def dataset(folder, *steps, decode='scaled'):
    """Of four JPEG files, the third of which ends early."""
    for number in range(4):
        save(folder / f'{number}.jpg')
    data = (folder / '2.jpg').read_bytes()
    (folder / '2.jpg').write_bytes(data[:len(data) // 2])
    pipeline = [dict(type='LoadRGBImage', decode=decode), *steps, dict(type='PackViews')]
    return ReproducibleDataset(dict(type='CustomDataset', data_root=str(folder), with_label=False,
                                    pipeline=pipeline))


def test_half_a_picture_is_replaced(tmp_path):
    """Its header is whole, so that the crop finds it out."""
    data = dataset(tmp_path, dict(type='TwoViewCrop', size=16))
    assert all(data[index]['inputs']['images'].shape == (3, 16, 16) for index in range(4))
    [(path, reason)] = data.bad_files().items()
    assert path.endswith('2.jpg') and 'truncated' in reason and 'copy it again' in reason


@pytest.mark.parametrize('decode', ['scaled', 'device'])
def test_another_next_step_is_named(tmp_path, decode):
    data = dataset(tmp_path, dict(type='RandomFlip', prob=1.), decode=decode)
    with pytest.raises(RuntimeError, match=f"after decode='{decode}' has to come TwoViewCrop"):
        [data[index] for index in range(4)]
