"""Features kept on disk, and used again only for the encoder and the images they are of."""
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cae_mm.evaluation.features import LabelledFolder, norm_after_mean


def describe(backbone: nn.Module, preprocess: nn.Module, dataset: LabelledFolder, feature: str,
             amp: bool) -> dict:
    """All that features depend on, by name: equal descriptions, equal features.

    Args:
        backbone, preprocess, feature, amp: see ``extract_features``.
        dataset (LabelledFolder): the images; a file is known by its name, size and time of change.
    """
    weights = hashlib.sha256()
    for name, value in backbone.state_dict().items():
        weights.update(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
        weights.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
    files = hashlib.sha256()
    root = dataset.images.data_root
    for index in range(len(dataset)):
        path = dataset.images.get_data_info(index)['img_path']
        status = os.stat(path)
        files.update(f'{os.path.relpath(path, root)} {status.st_size} {status.st_mtime_ns}\n'.encode())
    return {
        'weights of the encoder': weights.hexdigest()[:16],
        'attention heads': backbone.blocks[0].attn.num_heads,
        'image size': list(dataset.img_size),
        'mean and std of pixels': [x.flatten().tolist() for x in (preprocess.mean, preprocess.std)],
        'feature': feature,
        'final norm': 'after the mean' if norm_after_mean(backbone, feature) else 'before the mean',
        'precision': 'bfloat16' if amp else 'float32',
        'images': f'{len(dataset)} files {files.hexdigest()[:16]}',
    }


class FeatureStore:
    """A folder with features.npy (n, C) float32, labels.npy (n,) int64 and origin.json.

    It gets its name when all of it is written, so what has the name is complete.

    Args:
        folder (Path): of one split.
        origin (dict): see :func:`describe`.

    Raises:
        ValueError: when the folder holds features of another origin, or something else.
    """

    def __init__(self, folder: Path, origin: dict):
        self.folder, self.origin = folder, origin
        self.is_complete()

    def is_complete(self) -> bool:
        """Whether the features are there.

        Raises:
            ValueError: when other ones are; names what differs.
        """
        if not self.folder.exists():
            return False
        advice = 'Choose another directory for the features, or delete this one'
        if not (self.folder / 'origin.json').is_file():
            raise ValueError(f'{self.folder} holds something else than features. {advice}')
        origin = json.loads((self.folder / 'origin.json').read_text())
        differences = [f'{name}: {origin.get(name)} there, {value} now'
                       for name, value in self.origin.items() if origin.get(name) != value]
        if differences:
            raise ValueError(f'{self.folder} holds other features: {"; ".join(differences)}. {advice}')
        return True

    def get(self, shape: tuple[int, int],
            extract: Callable[[np.ndarray], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Read the features, after extracting them if they are not there.

        Args:
            shape (tuple[int, int]): number of files and width of a feature.
            extract (Callable): fills an array of this shape and returns its features and labels.

        Returns:
            tuple[Tensor, Tensor]: features, memory-mapped, and labels.
        """
        if not self.is_complete():
            with locked(self.folder.parent):
                if not self.is_complete():
                    self._write(shape, extract)
        return tuple(torch.from_numpy(np.load(self.folder / f'{name}.npy', mmap_mode='c'))
                     for name in ('features', 'labels'))

    def _write(self, shape, extract):
        part = self.folder.with_name(f'{self.folder.name}.partial')
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        array = allocate(part / 'features.npy', shape)
        features, labels = extract(array)
        array.flush()
        if len(features) < len(array):  # without the rows of unreadable files
            np.save(part / 'readable.npy', features.numpy())
            (part / 'readable.npy').replace(part / 'features.npy')
        np.save(part / 'labels.npy', labels.numpy())
        (part / 'origin.json').write_text(json.dumps(self.origin, indent=1))
        part.rename(self.folder)


def allocate(path: Path, shape: tuple[int, int]) -> np.memmap:
    """A float32 .npy file with all of its space reserved: a full disk shows now, not in an hour.

    Raises:
        OSError: when the disk is full.
    """
    array = np.lib.format.open_memmap(path, 'w+', np.float32, shape=shape)
    try:
        with path.open('r+b') as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        raise OSError(error.errno, f'{path} needs {array.nbytes / 2**30:.2f} GiB: {error.strerror}. '
                      'Choose another directory for the features') from error
    return array


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Let one process at a time write to ``directory``; the lock of a killed one is gone."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / 'lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'waiting for another process that writes to {directory}', flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
