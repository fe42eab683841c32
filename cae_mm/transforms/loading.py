"""Reading an image file of any kind as upright 8-bit RGB, or not at all."""
import contextlib
import io
import os
import warnings

import cv2
import mmcv.transforms
import mmpretrain.datasets  # noqa: F401  before ours, mmcv's step of the same name is registered
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmpretrain.registry import TRANSFORMS
from PIL import Image, ImageOps, UnidentifiedImageError

from cae_mm.disk import read_regular

# Of other kinds Pillow gives some, such as EPS, to other programs.
FORMATS = ('JPEG', 'PNG', 'PPM', 'BMP', 'TIFF', 'WEBP', 'GIF')


def pixel_limit():
    """The most pixels that a picture may have, by the environment variable ``CAE_MM_MAX_PIXELS``.

    A file of a few bytes can claim to be a picture that fills the memory: reading takes 4 to 16 bytes for
    each.
    """
    limit = os.environ.get('CAE_MM_MAX_PIXELS', '50000000')
    if not limit.isdecimal() or int(limit) < 1:
        raise ValueError(f'CAE_MM_MAX_PIXELS={limit} is no number of pixels, as 50000000 is')
    return int(limit)


MAX_PIXELS = Image.MAX_IMAGE_PIXELS = pixel_limit()
MAX_BYTES = 8 * MAX_PIXELS  # four channels of 16 bits
MAX_RATIO = 100  # of the sides: scaled to a usual shorter side, others fill the memory too
STRIP = 2**22  # pixels
MAX_SCANS = 100  # of a progressive JPEG, each of which costs a pass over the picture


def jpeg_decoder():
    """Find what decodes JPEG files to upright (3, H, W) uint8 RGB in less time than Pillow, and as it does.

    torchvision's is deprecated since 0.29, for torchcodec's, which came with 0.16 and needs torch 2.11.

    Returns:
        Callable[[bytes], Tensor] | None: None for Pillow.
    """
    with contextlib.suppress(ImportError, OSError, RuntimeError):  # not there, or not for this torch
        from torchcodec.decoders import decode_jpeg
        return decode_jpeg
    with contextlib.suppress(ImportError):
        from torchvision.io import decode_jpeg as decode
        return lambda data: decode(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode='RGB',
                                   apply_exif_orientation=True)


decode_jpeg = jpeg_decoder()


@contextlib.contextmanager
def open_image(data):
    """Open an image file whose header is within bounds, as a PIL Image that is yet to be decoded.

    Args:
        data (bytes): The file, of one of ``FORMATS``.

    Raises:
        Exception: Of many types, by Pillow, where the file cannot be read.
    """
    if data[:2] == b'\xff\xd8':
        values = np.frombuffer(data, np.uint8)  # bytes.count takes three times as long
        if np.count_nonzero((values[:-1] == 0xff) & (values[1:] == 0xda)) > MAX_SCANS:
            raise ValueError(f'more than {MAX_SCANS} scans')
        # What was never written of a file; decoders go on through the zeros.
        if data.endswith(bytes(16)) and data.rfind(b'\xff\xd9') < data.rfind(b'\xff\xda'):
            raise OSError('nothing but zeros at the end')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # what matters becomes an error
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            tags = getattr(image, 'tag_v2', {})  # a TIFF's tiles can be larger than it is
            for width, height in (image.size, (tags.get(322, 1), tags.get(323, 1))):
                if width * height > MAX_PIXELS:
                    raise Image.DecompressionBombError(f'{width} x {height} pixels')
            if max(image.size) > MAX_RATIO * min(image.size):
                raise ValueError(f'of {image.width} x {image.height} pixels one side is more than '
                                 f'{MAX_RATIO} times the other')
            yield image


def decode_rgb(data, shrink=1):
    """Decode an image file into upright 8-bit RGB.

    Args:
        data (bytes): The file: grey, palette, CMYK, 16-bit, with alpha (dropped), EXIF-rotated; of
            several pictures the first.
        shrink (int): 1, 2, 4 or 8, by which JPEG's decoder divides the sides on the way, rounded up. Other
            files stay as large as they are.

    Returns:
        np.ndarray: (H, W, 3) uint8.

    Raises:
        Exception: Of many types, by Pillow, where the file cannot be read.
    """
    with open_image(data) as image:
        if shrink > 1:
            image.draft(None, (image.width // shrink, image.height // shrink))
        elif decode_jpeg and data[:2] == b'\xff\xd8':
            # What it refuses, Pillow judges and explains.
            with contextlib.suppress(RuntimeError):
                return np.ascontiguousarray(decode_jpeg(data).permute(1, 2, 0).numpy())
        if image.format == 'PPM' and image.mode == 'RGB' and image.tile[0][0] == 'raw':
            # The pixels as they are stored, if all are there, for which Pillow takes many times as long.
            stored = np.frombuffer(data, np.uint8, offset=image.tile[0][2])[:3 * image.width * image.height]
            if stored.size == 3 * image.width * image.height:
                return stored.reshape(image.height, image.width, 3).copy()
        ImageOps.exif_transpose(image, in_place=True)
        # In strips: what Pillow makes on the way is several times as large as the result.
        pixels = np.empty((image.height, image.width, 3), np.uint8)
        height = max(1, STRIP // image.width)
        for top in range(0, image.height, height):
            bottom = min(top + height, image.height)
            pixels[top:bottom] = convert_rgb(image.crop((0, top, image.width, bottom)))
        return pixels


def jpeg_header(data):
    """What the header of a JPEG file says, or None for another file.

    Returns:
        tuple[tuple[int, int], int, bool] | None: Upright height and width, EXIF's orientation, and whether
            it has colours in YCbCr, as nearly all have; decoders differ in which others they know.
    """
    if data[:2] == b'\xff\xd8':
        with open_image(data) as image:
            # An orientation in XMP is Pillow's alone; the other decoders do not turn the picture.
            if b'tiff:Orientation' not in image.info.get('xmp', b''):
                orientation = image.getexif().get(0x112, 1)
                return (image.size if orientation in (5, 6, 7, 8) else image.size[::-1], orientation,
                        image.mode == 'RGB' and image.info.get('adobe_transform') != 0)
    return None


def convert_rgb(image):
    """Convert a PIL Image of any mode to RGB of 8 bits.

    Raises:
        ValueError: For pixels that do not fit into 16 bits.
    """
    if image.mode == 'F':
        raise ValueError('floating-point pixels: save the image with 8 or 16 bits')
    if image.mode == 'I' or image.mode.startswith('I;16'):
        # Pillow's own conversion saturates everything above 255.
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError('32-bit integer pixels: save the image with 8 or 16 bits')
        image = Image.fromarray((values >> 8).astype(np.uint8))
    return image.convert('RGB')


def explain(error, data):
    """Say why an image file cannot be read, and what to do.

    Args:
        error (Exception): What reading it raised.
        data (bytes): What there is of the file.
    """
    why = str(error)
    if isinstance(error, Image.DecompressionBombError):
        why = (f'{why.partition(" exceeds")[0]}, more than {MAX_PIXELS:,} pixels: make it smaller, or set '
               'the environment variable CAE_MM_MAX_PIXELS')
    elif isinstance(error, UnidentifiedImageError):
        why = ('the file is empty' if not data else
               'it is a web page, or the like: download the image itself' if data.lstrip()[:1] == b'<' else
               f'it is no whole header of {", ".join(FORMATS)}, and begins with {data[:12]}')
    elif data and not isinstance(error, ValueError):
        why += f'; the file is damaged, or ends early, after {len(data):,} bytes: copy it again'
    return f'{type(error).__name__}: {why}'


@TRANSFORMS.register_module()
class LoadRGBImage(BaseTransform):
    """Read ``img_path``, or what ``read_bytes`` gives, into ``img``, (H, W, 3) uint8 RGB, upright.

    An unreadable or truncated file gives None, which a dataset replaces by another sample; the
    reason is left under ``load_error`` in the dictionary that came in.

    Args:
        backend_args (dict, optional): mmengine file backend; None is that of the path.
        decode (str): 'whole' pictures are decoded here. 'scaled' and 'device' leave JPEG files under
            ``encoded`` to the next step, which has to be ``TwoViewCrop`` and draws the same box from their
            headers. 'scaled' then has the decoder shrink the picture to a half, fourth or eighth where no
            view then lacks pixels. For pictures of more than a million pixels, and not the same: a third of
            the values differ by more than two levels of 255. 'device' leaves those in colour to
            ``CAEDataPreprocessor``, after the masks and ``PackViews``; one that turns out to be damaged
            there stops the training.

    Raises:
        ValueError: For another ``decode``.
    """

    def __init__(self, backend_args=None, decode='whole'):
        if decode not in ('whole', 'scaled', 'device'):
            raise ValueError(f"decode {decode!r} is not one of ['whole', 'scaled', 'device']")
        self.backend_args, self.decode = backend_args, decode

    def transform(self, results):
        """Add ``img`` or ``encoded``, ``img_shape`` and ``ori_shape``, or return None."""
        path, data = results['img_path'], b''
        try:
            if 'read_bytes' in results:  # of a data set whose images are no files
                data = results['read_bytes'](MAX_BYTES)
            elif self.backend_args or '://' in path:
                data = fileio.get(path, backend_args=self.backend_args)
            else:
                data = read_regular(path, MAX_BYTES)
            results['decode'] = self.decode
            header = None if self.decode == 'whole' else jpeg_header(data)
            if header and (self.decode == 'scaled' or header[2]):
                shape, orientation, _ = header
                results.update(encoded=data, orientation=orientation, img_shape=shape, ori_shape=shape,
                               load_error=f'after decode={self.decode!r} has to come TwoViewCrop')
                return results
            image = decode_rgb(data)
        except Exception as error:  # decoders raise nearly every type on a damaged file
            results['load_error'] = explain(error, data)
            return None
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results


@ROOT_TRANSFORMS.register_module(force=True)
@TRANSFORMS.register_module(force=True)
class LoadImageFromFile(mmcv.transforms.LoadImageFromFile):
    """mmcv's step, which reads with :class:`LoadRGBImage` unless its arguments ask for something else.

    OpenCV, by which mmcv reads, fills up what is missing of a JPEG with grey. The name stays: mmdet's,
    mmseg's and mmpretrain's inferencers look for it. So does the order of the channels, BGR.

    Args: those of mmcv's.
    """

    def transform(self, results):
        """Add ``img``, (H, W, 3) BGR, ``img_shape`` and ``ori_shape``.

        Raises:
            ValueError: when the file cannot be read; with ``ignore_empty`` None is returned.
        """
        if (self.color_type, self.imdecode_backend, self.file_client_args) != ('color', 'cv2', None):
            return super().transform(results)
        if LoadRGBImage(self.backend_args).transform(results) is None:
            if self.ignore_empty:
                return None
            raise ValueError(f'{results["img_path"]} cannot be read ({results["load_error"]})')
        results['img'] = cv2.cvtColor(results['img'], cv2.COLOR_RGB2BGR)
        if self.to_float32:
            results['img'] = results['img'].astype(np.float32)
        return results
