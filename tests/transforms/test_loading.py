"""Every kind of image file becomes upright 8-bit RGB; a damaged one is reported, not raised."""
import io
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from cae_mm.transforms import LoadRGBImage, loading


def picture(height=24, width=40):
    """A smooth colour picture that no flip or rotation leaves as it is."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([6 * x, 10 * y, 3 * x + 4 * y], -1).astype(np.uint8))


def load(path):
    return LoadRGBImage()({'img_path': str(path)})


@pytest.mark.parametrize('suffix, mode', [
    *(('jpg', mode) for mode in ('RGB', 'L', 'CMYK', '1')),
    *(('png', mode) for mode in ('RGB', 'L', 'P', 'RGBA', 'LA', '1')),
    *(('tif', mode) for mode in ('RGB', 'L', 'CMYK', 'P', 'RGBA', 'LA', '1'))])
def test_modes(tmp_path, mode, suffix):
    path = tmp_path / f'x.{suffix}'
    picture().convert(mode).save(path)
    results = load(path)
    image = results['img']
    assert image.shape == (24, 40, 3) and image.dtype == np.uint8
    assert results['img_shape'] == results['ori_shape'] == (24, 40)
    assert np.array_equal(image, np.asarray(Image.open(path).convert('RGB')))


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('suffix', ['jpg', 'png'])
def test_exif_orientation(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x112] = orientation
    path = tmp_path / f'x.{suffix}'
    picture().save(path, exif=exif)
    image = load(path)['img']
    assert np.array_equal(image, np.asarray(ImageOps.exif_transpose(Image.open(path))))
    assert image.shape[:2] == ((24, 40) if orientation < 5 else (40, 24))


@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_16_bit_is_scaled_not_clipped(tmp_path, suffix):
    values = np.linspace(0, 65535, 24 * 40).astype(np.uint16).reshape(24, 40)
    Image.fromarray(values).save(tmp_path / f'x.{suffix}')
    image = load(tmp_path / f'x.{suffix}')['img']
    assert np.array_equal(image, np.repeat((values >> 8).astype(np.uint8)[..., None], 3, -1))


@pytest.mark.parametrize('suffix', ['jpg', 'png'])
@pytest.mark.parametrize('kept', [0, 10, 0.5, 0.95])
def test_truncated(tmp_path, suffix, kept):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    path = tmp_path / f'x.{suffix}'
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[:int(kept * len(data)) if kept < 1 else kept])
    info = {'img_path': str(path)}
    assert LoadRGBImage()(info) is None
    assert info['load_error']


def test_reasons(tmp_path):
    (tmp_path / 'text.jpg').write_text('no image')
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / 'float.tif')
    for name, reason in (('text.jpg', 'UnidentifiedImageError'), ('missing.jpg', 'FileNotFound'),
                         ('float.tif', 'floating-point')):
        info = {'img_path': str(tmp_path / name)}
        assert LoadRGBImage()(info) is None
        assert reason in info['load_error']


def test_file_backend(tmp_path):
    picture().save(tmp_path / 'x.png')
    transform = LoadRGBImage(backend_args=dict(backend='local'))
    assert np.array_equal(transform({'img_path': str(tmp_path / 'x.png')})['img'], picture())


def pillow_decoder(data):
    """What torchcodec gives, where it is not installed."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert('RGB')
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize('hidden, module', [
    ([], 'torchcodec'), (['torchcodec.decoders'], 'torchvision'),
    (['torchcodec.decoders', 'torchvision.io'], 'pillow')])
def test_decoders_give_the_same_pixels(tmp_path, monkeypatch, hidden, module):
    try:
        import torchcodec.decoders as decoders
    except (ImportError, OSError, RuntimeError):
        decoders = types.SimpleNamespace(decode_jpeg=pillow_decoder)
        monkeypatch.setitem(sys.modules, 'torchcodec', types.ModuleType('torchcodec'))
        monkeypatch.setitem(sys.modules, 'torchcodec.decoders', decoders)
    for name in hidden:
        monkeypatch.setitem(sys.modules, name, None)
    decode = loading.jpeg_decoder()
    assert (decode is decoders.decode_jpeg) == (module == 'torchcodec')
    assert (decode is None) == (module == 'pillow')
    monkeypatch.setattr(loading, 'decode_jpeg', decode)
    exif = Image.Exif()
    exif[0x112] = 6
    for number, (mode, options) in enumerate([
            ('RGB', {}), ('RGB', dict(exif=exif)), ('RGB', dict(progressive=True, subsampling=2)),
            ('L', dict(exif=exif)), ('CMYK', {})]):
        path = tmp_path / f'{number}.jpg'
        picture().convert(mode).save(path, **options)
        assert np.array_equal(load(path)['img'], ImageOps.exif_transpose(Image.open(path)).convert('RGB'))
    damaged = {'img_path': str(tmp_path / 'damaged.jpg')}
    (tmp_path / 'damaged.jpg').write_bytes(path.read_bytes()[:-200])
    assert LoadRGBImage()(damaged) is None and 'truncated' in damaged['load_error']
