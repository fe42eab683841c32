"""Reading an image file of any kind as upright 8-bit RGB."""
import contextlib
import io
from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmpretrain.registry import TRANSFORMS
from PIL import Image, ImageOps


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


def decode_rgb(data):
    """Decode an image file into upright 8-bit RGB.

    Args:
        data (bytes): The file: grey, palette, CMYK, 16-bit, with alpha (dropped), EXIF-rotated.

    Returns:
        np.ndarray: (H, W, 3) uint8.

    Raises:
        Exception: Of many types, by Pillow, where the file cannot be read.
    """
    if decode_jpeg and data[:2] == b'\xff\xd8':
        # What it refuses, Pillow judges and explains.
        with contextlib.suppress(RuntimeError):
            return np.ascontiguousarray(decode_jpeg(data).permute(1, 2, 0).numpy())
    with Image.open(io.BytesIO(data)) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode == 'I' or image.mode.startswith('I;16'):
            # Pillow's own conversion saturates everything above 255.
            values = np.asarray(image)
            if values.min() < 0 or values.max() > 65535:
                raise ValueError('32-bit integer pixels: save the image with 8 or 16 bits')
            image = Image.fromarray((values >> 8).astype(np.uint8))
        elif image.mode == 'F':
            raise ValueError('floating-point pixels: save the image with 8 or 16 bits')
        return np.array(image.convert('RGB'))


@TRANSFORMS.register_module()
class LoadRGBImage(BaseTransform):
    """Read ``img_path`` into ``img``, (H, W, 3) uint8 RGB, upright.

    An unreadable or truncated file gives None, which a dataset replaces by another sample; the
    reason is left under ``load_error`` in the dictionary that came in.

    Args:
        backend_args (dict, optional): mmengine file backend; None reads the local disk.
    """

    def __init__(self, backend_args=None):
        self.backend_args = backend_args

    def transform(self, results):
        """Add ``img``, ``img_shape`` and ``ori_shape``, or return None."""
        path = results['img_path']
        try:
            data = (fileio.get(path, backend_args=self.backend_args) if self.backend_args
                    else Path(path).read_bytes())
            image = decode_rgb(data)
        except Exception as error:  # decoders raise nearly every type on a damaged file
            results['load_error'] = f'{type(error).__name__}: {error}'
            return None
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results
