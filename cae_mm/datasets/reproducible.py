"""A dataset whose samples depend on nothing but (seed, epoch, index)."""
import hashlib
import random

import numpy as np
import torch
from mmengine.dist import all_reduce
from mmpretrain.registry import DATASETS
from torch.utils.data import Dataset


def seed_sample(seed, epoch, index):
    """Seed Python, numpy and torch on the CPU for one sample."""
    digest = hashlib.blake2b(f'{seed} {epoch} {index}'.encode(), digest_size=8).digest()
    state = int.from_bytes(digest, 'little')
    random.seed(state)
    np.random.seed(state >> 32)
    torch.default_generator.manual_seed(state >> 1)


def build_images(cfg):
    """Build an mmpretrain dataset of image files, and say clearly where there are none.

    Args:
        cfg (dict): Config of ``CustomDataset``, ``ImageNet`` or another dataset of mmpretrain.

    Returns:
        BaseDataset: The dataset, with its list of files read.

    Raises:
        FileNotFoundError: When the folder does not exist or has no image.
    """
    dataset = DATASETS.build(dict(cfg, lazy_init=True))
    try:
        dataset.full_init()
        if len(dataset):
            return dataset
        reason = 'the annotation file lists none'
    except (OSError, RuntimeError) as error:
        reason = error
    extensions = ' '.join(sorted(getattr(dataset, 'extensions', ())))
    where = 'sub-folders of the folder' if getattr(dataset, 'with_label', False) else 'folder'
    folder = getattr(dataset, 'img_prefix', dataset.data_prefix)  # mmdet and mmseg have only the second
    raise FileNotFoundError(
        f'there are no images in the {where} {folder!r} (looked for {extensions}): '
        f'{reason}. Give the folder that has them, as data_root=PATH or in data_prefix; a folder '
        'without sub-folders for the classes needs with_label=False')


@DATASETS.register_module()
class ReproducibleDataset(Dataset):
    """Wrap a dataset so that each sample's random numbers come from (seed, epoch, index) alone.

    Number of workers, ranks and interruptions then change nothing. The index is that of
    :class:`EpochSampler`, ``epoch * len(dataset) + index``; a plain sampler stays in epoch 0.
    Reading a sample seeds the generators of the process that reads it.

    A file that cannot be read (the pipeline returns None) is replaced by the next readable one and
    remembered in memory that all workers share.

    Args:
        dataset (dict | BaseDataset): The dataset of files, with its pipeline.
        seed (int): Seed of the augmentation and of the masks, until ``set_seed`` gives another.

    Raises:
        FileNotFoundError: When there are no images.
        RuntimeError: By an item, when more than a tenth of the files (and more than one) are bad.
    """

    def __init__(self, dataset, seed=0):
        self.dataset = build_images(dataset) if isinstance(dataset, dict) else dataset
        self._seed = torch.tensor(seed).share_memory_()  # so that running workers see a change
        self._bad = torch.zeros(len(self.dataset), dtype=torch.uint8).share_memory_()

    def set_seed(self, seed):
        """Take another seed, in the workers too."""
        self._seed.fill_(seed)

    @property
    def metainfo(self):
        """Meta information of the wrapped dataset."""
        return self.dataset.metainfo

    def get_data_info(self, index):
        """What the wrapped dataset knows of a file before reading it, in any epoch."""
        return self.dataset.get_data_info(index % len(self))

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        epoch, index = divmod(index, len(self))
        for position in range(index, index + len(self)):
            position %= len(self)
            seed_sample(int(self._seed), epoch, index)
            sample, _, _ = self._read(position)
            if sample is not None:
                return sample
            self._bad[position] = 1
            self.check_bad_files()
        raise RuntimeError(self._complaint())

    def _read(self, position):
        """Run the pipeline: (sample or None, path, reason of a failure)."""
        info = self.dataset.get_data_info(position)
        path = info.get('img_path', f'number {position}')
        sample = self.dataset.pipeline(info)
        return sample, path, info.get('load_error', 'the pipeline returned nothing')

    def _complaint(self):
        bad = self._bad.nonzero().flatten()
        reads = map(self._read, bad[:5].tolist())
        first = '; '.join(f'{path} ({reason})' for _, path, reason in reads)
        return (f'{len(bad)} of {len(self)} images cannot be read, more than a tenth. The first: '
                f'{first}. Repair them, or remove them from the folder or the annotation file')

    def check_bad_files(self):
        """Raise RuntimeError when more than a tenth of the files, and more than one, are bad."""
        if int(self._bad.sum()) > max(1, len(self) // 10):
            raise RuntimeError(self._complaint())

    def gather_bad_files(self):
        """Make the bad files of every rank known to all: to be called by all ranks."""
        all_reduce(self._bad, op='max')

    def bad_files(self):
        """All files found bad so far, by any worker.

        Returns:
            dict[str, str]: Path to reason. The reason is found by reading the file again.
        """
        reads = map(self._read, self._bad.nonzero().flatten().tolist())
        return {path: 'could be read at the second try' if sample is not None else reason
                for sample, path, reason in reads}
