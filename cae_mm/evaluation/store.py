"""Features kept on disk, and used again only for the encoder and the images they are of."""
import errno
import hashlib
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cae_mm.atomic import replacing
from cae_mm.evaluation.features import LabelledFolder, norm_after_mean
from cae_mm.models import TimmViT

ADVICE = 'Choose another directory for the features, or make room in this one'


def describe(backbone: nn.Module, preprocess: nn.Module, dataset: LabelledFolder, feature: str,
             amp: bool) -> dict[str, str]:
    """All that features depend on, by name; files are known by name, size and time of change."""
    weights = hashlib.sha256()
    for name, value in backbone.state_dict().items():
        weights.update(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
        weights.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
    files = hashlib.sha256()
    root = dataset.images.data_root
    for index in range(len(dataset)):
        path = dataset.images.get_data_info(index)['img_path']
        status = os.stat(path)
        files.update(os.fsencode(f'{os.path.relpath(path, root)} {status.st_size} {status.st_mtime_ns}\n'))
    return {
        'weights of the encoder': weights.hexdigest()[:16],
        **({'model of timm': backbone.name} if isinstance(backbone, TimmViT) else
           {'attention heads': str(backbone.blocks[0].attn.num_heads)}),
        'image size': str(dataset.img_size),
        'mean and std of pixels': str([x.flatten().tolist() for x in (preprocess.mean, preprocess.std)]),
        'feature': feature,
        'final norm': 'after the mean' if norm_after_mean(backbone, feature) else 'before the mean',
        'precision': 'bfloat16' if amp else 'float32',
        'images': f'{len(dataset)} files {files.hexdigest()[:16]}',
    }


def read(path: Path, origin: dict[str, str]) -> tuple[Tensor, Tensor] | None:
    """Kept features (n, C), memory-mapped, and labels (n,); None without a file.

    A ValueError names what differs when the file has features of another origin, or something else.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, 'pt') as file:
            there = file.metadata() or {}
            differences = [f'{name}: {there.get(name)} there, {value} now'
                           for name, value in origin.items() if there.get(name) != value]
            if not differences:
                return file.get_tensor('features'), file.get_tensor('labels')
    except (SafetensorError, OSError) as error:
        raise ValueError(f'{path} holds something else than features ({error}). {ADVICE}') from error
    raise ValueError(f'{path} holds other features: {"; ".join(differences)}. {ADVICE}')


def write(path: Path, origin: dict[str, str], features: Tensor, labels: Tensor) -> None:
    """Keep features for :func:`read`; the file gets its name when all of it is written."""
    try:
        with replacing(path, features.nbytes + labels.nbytes) as temporary:
            save_file(dict(features=features, labels=labels), temporary, origin)
    except SafetensorError as error:
        raise OSError(f'{path} could not be written: {error}') from error


def make_room(directory: Path, size: int) -> None:
    """Make the directory; an OSError where the disk has no room for ``size`` bytes: now, not in an hour."""
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if free < size:
        raise OSError(errno.ENOSPC, f'{directory} needs {size / 2**30:.2f} GiB and has {free / 2**30:.2f}. '
                      f'{ADVICE}')
