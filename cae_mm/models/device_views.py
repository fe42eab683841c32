"""Decoding, cropping and resizing JPEG files on the device, for what loader workers left encoded."""
from collections.abc import Sequence

import torch
from torch import Tensor

CHUNK = 32  # files whose whole pictures and filters are in memory at once
# For an EXIF orientation: whether rows and columns change places, and what of (3, H, W) is mirrored then.
TURNS = {2: (False, [2]), 3: (False, [1, 2]), 4: (False, [1]),
         5: (True, []), 6: (True, [2]), 7: (True, [1, 2]), 8: (True, [1])}
# Pillow's: the response at a distance in pixels of the coarser picture.
FILTERS = {
    'bilinear': lambda x: (1 - x).clamp(min=0),
    'bicubic': lambda x: torch.where(x < 1, (1.5 * x - 2.5) * x * x + 1,
                                     (((2.5 - 0.5 * x) * x - 4) * x + 2) * (x < 2)),
    'lanczos': lambda x: torch.sinc(x) * torch.sinc(x / 3) * (x < 3)}


def filter_weights(sides: list[int], size: int, name: str, device: torch.device = 'cpu') -> Tensor:
    """Matrices that resize an axis with an antialiased filter, (n, size, longest side) float32.

    PyTorch has no Lanczos filter for GPUs up to 2.14, and on floats its others do not clip what overshoots
    along the first axis, as Pillow does.

    Args:
        sides (list[int]): Of n images, pixels along the axis; the weights of what is beyond them are 0.
        size (int): Pixels after resizing.
        name (str): One of ``FILTERS``.
        device (torch.device): Where they are computed.
    """
    ends = torch.tensor(sides, device=device)[:, None, None]
    scale = ends / size
    pixels = torch.arange(max(sides), device=device) + 0.5
    centers = (torch.arange(size, device=device)[:, None] + 0.5) * scale
    weights = FILTERS[name]((pixels - centers).abs() / scale.clamp(min=1)) * (pixels < ends)
    return weights / weights.sum(2, keepdim=True)


def decode(crops: Sequence, device: torch.device) -> list[Tensor]:
    """Decode JPEG files to upright (3, H, W) uint8 RGB on the device: with nvJPEG if that is a GPU.

    Raises:
        ValueError: With the path of the file that cannot be decoded, and what to do.
    """
    from torchvision.io import decode_jpeg  # deprecated: without it all else works
    images = []
    try:
        files = [torch.frombuffer(bytearray(crop.encoded), dtype=torch.uint8) for crop in crops]
        for crop, image in zip(crops, decode_jpeg(files, mode='RGB', device=device), strict=True):
            swapped, mirrored = TURNS.get(crop.orientation, (False, []))
            images.append((image.mT if swapped else image).flip(mirrored))
            if images[-1].shape[1:] != crop.shape:
                raise RuntimeError(f'decoded to {tuple(images[-1].shape[1:])}, not to {crop.shape}')
        return images
    except RuntimeError as error:  # of any of them
        if len(crops) > 1:
            return [image for crop in crops for image in decode([crop], device)]
        raise ValueError(
            f'{crops[0].path} cannot be decoded on the {device.type} ({error}), where no other image can '
            'take its place: pack the images with tools/make_shards.py, which leaves such files out and '
            "lists them, or set decode='whole' of LoadRGBImage") from error


def views_on_device(crops: list, device: torch.device) -> dict[str, Tensor]:
    """The views of a batch, as ``TwoViewCrop`` makes them of pixels.

    Args:
        crops (list): What ``TwoViewCrop`` leaves for the device, one for each image.
        device (torch.device): Where to decode and resize.

    Returns:
        dict[str, Tensor]: ``images`` (B, 3, H, W) and, with a second view, ``target_images``; float32,
            whole numbers of 0 to 255.
    """
    views = [{name: torch.from_numpy(view).to(device).float()
              for name, view in crop.get('pixels', {}).items()} for crop in crops]
    encoded = [(crop, made) for crop, made in zip(crops, views, strict=True) if not made]
    for start in range(0, len(encoded), CHUNK):
        chunk, made = zip(*encoded[start:start + CHUNK], strict=True)
        heights, widths = zip(*(crop.box[2:] for crop in chunk), strict=True)
        matrices = [(name, filter_weights(heights, height, filter_, device),
                     filter_weights(widths, width, filter_, device).mT)
                    for name, (height, width), filter_ in chunk[0].views]
        for number, (crop, image) in enumerate(zip(chunk, decode(chunk, device), strict=True)):
            top, left, h, w = crop.box
            if crop.flip:
                left = image.shape[2] - left - w
            box = image[:, top:top + h, left:left + w].float()
            box = box.flip(2) if crop.flip else box
            for name, rows, columns in matrices:
                half = (box @ columns[number, :w]).round_().clamp_(0, 255)
                made[number][name] = (rows[number, :, :h] @ half).round_().clamp_(0, 255)
    return {name: torch.stack([made[name] for made in views]) for name in views[0]}
