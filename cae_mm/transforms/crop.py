"""Random crops: the one seen by encoder and tokenizer, and the one of linear probing."""
import math
import random

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import BaseTransform
from mmengine.structures import BaseDataElement
from mmengine.utils import to_2tuple
from mmpretrain.datasets.transforms import RandomResizedCrop
from mmpretrain.registry import TRANSFORMS
from PIL import Image

from .formatting import NAMES
from .loading import decode_rgb, explain

FILTERS = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC,
           'lanczos': Image.Resampling.LANCZOS}
TORCH_HAS_LANCZOS = torch.__version__ >= '2.13'


def resize_pillow(image, size, interpolation):
    """Resize with Pillow: (h, w, 3) uint8 array to (3, H, W) uint8 tensor."""
    resized = Image.fromarray(image).resize(size[::-1], FILTERS[interpolation])
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def resize_torch(image, size, interpolation):
    """Resize with PyTorch's vector code for Pillow's filters; its weights have 16 bits, not 32."""
    if interpolation == 'lanczos' and not TORCH_HAS_LANCZOS:
        return resize_pillow(image, size, interpolation)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]
    return F.interpolate(planes, size, mode=interpolation, antialias=True)[0]


RESIZE = {'pillow': resize_pillow, 'torch': resize_torch}


@TRANSFORMS.register_module()
class TwoViewCrop(BaseTransform):
    """Flip the image, crop one random box, and resize that box for encoder and tokenizer.

    The random numbers are drawn as the official code draws them: the flip from torch, then the
    box from Python's ``random`` (up to ten tries of area and log aspect, then top and left).

    Args:
        size (int | tuple[int, int]): Height and width of the encoder's image, in pixels.
        target_size (int | tuple[int, int], optional): The same of the tokenizer's image; None for
            no second view.
        interpolation (str): Filter of the encoder's image: bilinear, bicubic or lanczos.
        target_interpolation (str): Filter of the tokenizer's image.
        scale (tuple[float, float]): Area of the box relative to the image.
        ratio (tuple[float, float]): Width by height of the box.
        flip_prob (float): Probability of the horizontal flip.
        backend (str): 'pillow' is bit-exact with the official code; 'torch' applies the same
            antialiased filters several times faster, and about one value in 40 differs, nearly always by
            one or two levels of 255. Before PyTorch 2.13, which has no Lanczos filter, that is Pillow's.

    Raises:
        ValueError: For a filter or backend of another name.
    """

    def __init__(self, size, target_size=None, interpolation='bicubic',
                 target_interpolation='lanczos', scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3),
                 flip_prob=0.5, backend='pillow'):
        for name in (interpolation, target_interpolation):
            if name not in FILTERS:
                raise ValueError(f'interpolation {name!r} is not one of {sorted(FILTERS)}')
        if backend not in RESIZE:
            raise ValueError(f'backend {backend!r} is not one of {sorted(RESIZE)}')
        self.views = [('img', to_2tuple(size), interpolation)]
        if target_size is not None:
            self.views.append(('target_img', to_2tuple(target_size), target_interpolation))
        self.scale, self.ratio, self.flip_prob = scale, ratio, flip_prob
        self.resize = RESIZE[backend]

    def draw_box(self, height, width):
        """Draw the crop of a (height, width) image: (top, left, height, width) in pixels."""
        log_ratio = [math.log(ratio) for ratio in self.ratio]
        for _ in range(10):
            area = random.uniform(*self.scale) * height * width
            aspect = math.exp(random.uniform(*log_ratio))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return random.randint(0, height - h), random.randint(0, width - w), h, w
        # Very long images: the largest central box whose ratio is allowed.
        w = min(width, round(height * max(self.ratio)))
        h = min(height, round(width / min(self.ratio)))
        return (height - h) // 2, (width - w) // 2, h, w

    def crop(self, image, box, flip):
        """Cut the box out of the (flipped) image and make its views.

        Args:
            image (np.ndarray): (H, W, 3) uint8.
            box (tuple): Top, left, height and width, in the image after the flip.
            flip (bool): Whether the image is mirrored first.

        Returns:
            dict[str, Tensor]: (3, h, w) uint8, ``img`` and, with a second view, ``target_img``.
        """
        top, left, h, w = box
        if flip:
            # Mirroring the mirrored box is the same as mirroring the whole image, and less work.
            left = image.shape[1] - left - w
        crop = image[top:top + h, left:left + w]
        crop = cv2.flip(crop, 1) if flip else np.ascontiguousarray(crop)
        return {key: self.resize(crop, size, filter_) for key, size, filter_ in self.views}

    def transform(self, results):
        """Replace ``img``, or ``encoded``, by the encoder's view and add ``target_img``.

        None where the encoded file is damaged, as by ``LoadRGBImage``. With its ``decode='device'``
        everything is under ``img``.
        """
        flip = bool(torch.rand(1) < self.flip_prob)
        data, image = results.pop('encoded', None), results.get('img')
        device = results.pop('decode', None) == 'device'
        box = self.draw_box(*(results['ori_shape'] if data else image.shape[:2]))
        if data and device:
            results['img'] = BaseDataElement(
                encoded=data, path=results['img_path'], shape=results['ori_shape'], box=box, flip=flip,
                orientation=results['orientation'],
                views=[(NAMES[key], size, filter_) for key, size, filter_ in self.views])
            del results['load_error']
            return results
        if data:
            try:
                image, box = self.decode(data, results['ori_shape'], box)
            except Exception as error:  # decoders raise nearly every type on a damaged file
                results['load_error'] = explain(error, data)
                return None
            del results['load_error']
        views = self.crop(image, box, flip)
        if device:  # no tensors: each would hold a file descriptor until its batch is used
            pixels = {NAMES[key]: view.numpy() for key, view in views.items()}
            views = {'img': BaseDataElement(pixels=pixels)}
        results.update(views)
        return results

    def decode(self, data, shape, box):
        """Decode a JPEG file at an eighth, fourth or half, where its box still has the pixels of each view.

        Args:
            data (bytes): The file.
            shape (tuple[int, int]): Height and width by its header, upright.
            box (tuple): Top, left, height and width, in pixels.

        Returns:
            tuple[np.ndarray, tuple]: (H, W, 3) uint8, and the box there, to the nearest pixel.
        """
        top, left, h, w = box
        shrink = next(n for n in (8, 4, 2, 1) if n == 1 or all(
            h >= n * height and w >= n * width for _, (height, width), _ in self.views))
        image = decode_rgb(data, shrink)
        if image.shape[:2] != tuple(-(-side // shrink) for side in shape):
            raise ValueError(f'decoded to {image.shape[:2]}, not to 1/{shrink} of {shape}')
        edges = top, left, top + h, left + w
        top, left, bottom, right = ((edge + shrink // 2) // shrink for edge in edges)
        return image, (top, left, bottom - top, right - left)


@TRANSFORMS.register_module()
class ClippedResizedCrop(RandomResizedCrop):
    """The crop of linear probing: one draw of area and log aspect, clipped to the image.

    mmpretrain's RandomResizedCrop draws again until the box fits, and so takes boxes of nearly the
    whole image less often, and never of a long image.

    Args: those of mmpretrain's RandomResizedCrop; ``max_attempts`` has no effect.

    Source: the official linear probing, after MAE's.
    """

    def rand_crop_params(self, img):
        """Draw the box in an (H, W, 3) array: (top, left, height, width) in pixels."""
        height, width = img.shape[:2]
        area = np.random.uniform(*self.crop_ratio_range) * height * width
        aspect = math.exp(np.random.uniform(*np.log(self.aspect_ratio_range)))
        w = min(max(round(math.sqrt(area * aspect)), 1), width)
        h = min(max(round(math.sqrt(area / aspect)), 1), height)
        return np.random.randint(height - h + 1), np.random.randint(width - w + 1), h, w
