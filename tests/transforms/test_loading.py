"""Every kind of image file becomes upright 8-bit RGB; a damaged one is reported, not raised."""
import io
import os
import re
import socket
import struct
import sys
import types
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from cae_mm.transforms import LoadImageFromFile, LoadRGBImage, loading


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
    (tmp_path / 'page.jpg').write_text('<!DOCTYPE html>')
    (tmp_path / 'script.jpg').write_text('%!PS-Adobe-3.0 EPSF-3.0')
    (tmp_path / 'empty.jpg').touch()
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / 'float.tif')
    for name, reason in (('text.jpg', "begins with b'no image'"), ('page.jpg', 'web page'),
                         ('script.jpg', 'begins with'), ('empty.jpg', 'is empty'),
                         ('missing.jpg', 'FileNotFound'), ('float.tif', 'floating-point')):
        info = {'img_path': str(tmp_path / name)}
        assert LoadRGBImage()(info) is None
        assert reason in info['load_error']


def tiff(width, height, tile, data):
    """A grey, deflated TIFF of one tile."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1),
            (322, 4, tile), (323, 4, tile), (324, 4, 134), (325, 4, len(data))]
    head = b''.join(struct.pack('<HHII', tag, kind, 1, value) for tag, kind, value in tags)
    return b'II*\0' + struct.pack('<IH', 8, len(tags)) + head + bytes(4) + data


def png(width, height, *chunks):
    """A PNG of one bit a pixel, and no pixels."""
    head = struct.pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        for kind, data in ((b'IHDR', head), *chunks, (b'IDAT', b''), (b'IEND', b'')))


def resized(kind, old, new):
    """A picture whose header has other sides."""
    file = io.BytesIO()
    picture(24, 40).save(file, kind)
    assert old in file.getvalue()
    return file.getvalue().replace(old, new, 1)


BOMBS = {
    'jpeg': (resized('jpeg', struct.pack('>HH', 24, 40), struct.pack('>HH', 30000, 30000)), 'pixels'),
    'png': (png(60000, 60000), '3600000000 pixels.*, more than 50,000,000 pixels: .* CAE_MM_MAX_PIXELS'),
    'gif': (resized('gif', struct.pack('<HH', 40, 24), struct.pack('<HH', 60000, 60000)), 'pixels'),
    'bmp': (resized('bmp', struct.pack('<ii', 40, 24), struct.pack('<ii', 30000, 30000)), 'pixels'),
    'ppm': (resized('ppm', b'40 24', b'9999 9999'), '9999 x 9999 pixels'),
    'tile': (tiff(8, 8, 30000, zlib.compress(bytes(10**6))), '30000 x 30000 pixels'),
    'webp': (b'RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0/\xff\xff\xff\x0f' + bytes(8), 'pixels|decoder object'),
    'line': (png(10**7, 1), 'of 10000000 x 1 pixels one side is more than 100 times the other'),
    'text': (png(8, 8, (b'zTXt', b'a\0\0' + zlib.compress(bytes(10**7)))), 'MAX_TEXT_CHUNK'),
    'profile': (png(8, 8, (b'iCCP', b'a\0\0' + zlib.compress(bytes(10**7)))), 'MAX_TEXT_CHUNK'),
    'scans': (resized('jpeg', b'\xff\xda', 101 * b'\xff\xda'), 'more than 100 scans')}


@pytest.mark.parametrize('kind', BOMBS)
def test_bombs_are_not_decoded(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(Image.Image, 'load', lambda image: pytest.fail('decoded'))
    monkeypatch.setattr(loading, 'decode_jpeg', Image.Image.load)
    data, reason = BOMBS[kind]
    path = tmp_path / 'x.jpg'
    path.write_bytes(data)
    info = {'img_path': str(path)}
    assert LoadRGBImage()(info) is None
    assert re.search(reason, info['load_error'])
    with pytest.raises(ValueError, match=f'x.jpg cannot be read .*{reason}'):
        LoadImageFromFile()({'img_path': str(path)})


def test_the_limit_can_be_set(tmp_path, monkeypatch):
    monkeypatch.setenv('CAE_MM_MAX_PIXELS', '100')
    assert loading.pixel_limit() == 100
    monkeypatch.setattr(loading, 'MAX_PIXELS', 100)
    picture().save(tmp_path / 'x.jpg')
    assert load(tmp_path / 'x.jpg') is None
    for value in ('-1', '0', '1e9', ''):
        monkeypatch.setenv('CAE_MM_MAX_PIXELS', value)
        with pytest.raises(ValueError, match=f'CAE_MM_MAX_PIXELS={value} is no number of pixels'):
            loading.pixel_limit()


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'fifo.jpg')
    (tmp_path / 'folder.jpg').mkdir()
    (tmp_path / 'loop.jpg').symlink_to('loop.jpg')
    (tmp_path / 'device.jpg').symlink_to('/dev/zero')
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / 'socket.jpg'))
    with open(tmp_path / 'sparse.jpg', 'wb') as file:
        file.truncate(2**40)
    for name, reason in dict(fifo='is a FIFO', folder='is a folder', loop='Errno', device='is a device',
                             socket='is a socket', sparse='bytes, more than').items():
        info = {'img_path': str(tmp_path / f'{name}.jpg')}
        assert LoadRGBImage()(info) is None and reason in info['load_error']


@pytest.mark.parametrize('suffix, options', [
    ('jpg', {}), ('jpg', dict(progressive=True)), ('png', {}), ('gif', {}), ('webp', {}),
    ('webp', dict(lossless=True)), ('bmp', {}), ('ppm', {}), ('tif', {}),
    ('tif', dict(compression='tiff_lzw'))])
def test_half_a_picture_is_none(tmp_path, suffix, options):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    path = tmp_path / f'x.{suffix}'
    Image.fromarray(noise).save(path, **options)
    image = load(path)['img']
    whole, data = LoadImageFromFile()({'img_path': str(path)}), path.read_bytes()
    assert np.array_equal(whole['img'], image[..., ::-1]) and whole['ori_shape'] == (64, 64)
    path.write_bytes(data[:len(data) // 2])
    with pytest.raises(ValueError, match='copy it again|not enough|begins with'):
        LoadImageFromFile()({'img_path': str(path)})
    assert LoadImageFromFile(ignore_empty=True)({'img_path': str(path)}) is None
    if suffix == 'jpg':
        path.write_bytes(data[:len(data) // 2] + bytes(len(data) // 2))
        with pytest.raises(ValueError, match='nothing but zeros at the end'):
            LoadImageFromFile()({'img_path': str(path)})


@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain', 'mmdet', 'mmseg'])
def test_the_loading_step_of_every_task_is_ours(scope):
    from mmengine.registry import TRANSFORMS, init_default_scope
    init_default_scope(scope)
    assert type(TRANSFORMS.build(dict(type='LoadImageFromFile'))) is LoadImageFromFile


def test_other_arguments_are_left_to_mmcv(tmp_path):
    picture().save(tmp_path / 'x.png')
    grey = LoadImageFromFile(color_type='grayscale')({'img_path': str(tmp_path / 'x.png')})['img']
    assert grey.ndim == 2


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


@pytest.mark.parametrize('head, depth', [
    (b'P6 40 24 255\n', 1), (b'P6\n# a comment\n40 24\n255\n', 1), (b'P6 40 24 65535\n', 2),
    (b'P6 40 24 100\n', 1), (b'P5 120 24 255\n', 1)])
def test_stored_pixels_are_those_of_pillow(tmp_path, head, depth):
    path, noise = tmp_path / 'x.ppm', np.random.default_rng(0).integers(0, 100, 24 * 120 * depth, np.uint8)
    path.write_bytes(head + noise.tobytes() + b'more')
    image = load(path)['img']
    assert np.array_equal(image, Image.open(path).convert('RGB')) and image.flags.writeable
    path.write_bytes(head + noise.tobytes()[:-1])
    assert load(path) is None
