"""A dataset whose samples depend on nothing but (seed, epoch, index)."""
import hashlib
import os
import random

import numpy as np
import torch
from mmengine.dist import all_reduce
from mmpretrain.registry import DATASETS
from torch.utils.data import Dataset

from cae_mm.disk import named

from .annotations import leaf_datasets
from .reader import UnreadableFile, guard, leaves

# What folders for training and for validation are called side by side: ImageNet's, ADE20K's, COCO's.
PARTS = (('train', 'val'), ('training', 'validation'), ('train2017', 'val2017'))


def seed_sample(seed, epoch, index):
    """Seed Python, numpy and torch on the CPU for one sample."""
    digest = hashlib.blake2b(f'{seed} {epoch} {index}'.encode(), digest_size=8).digest()
    state = int.from_bytes(digest, 'little')
    random.seed(state)
    np.random.seed(state >> 32)
    torch.default_generator.manual_seed(state >> 1)


def build_images(cfg):
    """Build a dataset of image files, and say clearly where there are none.

    Args:
        cfg (dict): Config of a dataset of mmpretrain, mmdet or mmseg, or of a wrapper around such.

    Returns:
        Dataset: The dataset, with its list of files read.

    Raises:
        FileNotFoundError: When a folder does not exist or has no image.
        ValueError: When training and validation images would be read together.
    """
    try:
        dataset = DATASETS.build(cfg)
        if len(dataset):
            check_parts(dataset)
            return dataset
        failure = FileNotFoundError('the annotation file lists none')
    except (OSError, RuntimeError) as error:
        failure = error
    for leaf in leaf_datasets(cfg):
        check_folder(leaf)
    raise failure


def check_parts(dataset):
    """Refuse a folder that is read as a whole although it has parts for training and validation."""
    for leaf in leaves(dataset):
        folder = getattr(leaf, 'img_prefix', '').rstrip('/')
        if not folder or leaf.ann_file or os.path.basename(folder) == '.':
            continue
        for train, val in PARTS:
            if all(os.path.isdir(os.path.join(folder, part)) for part in (train, val)):
                raise ValueError(f'{folder} holds {train}/ and {val}/, which would be read together: set '
                                 f'data_prefix={train}, or data_prefix=. if you mean both')


def check_folder(cfg):
    """Raise a FileNotFoundError with the folder of a dataset, when it has no images."""
    try:
        dataset = DATASETS.build(dict(cfg, lazy_init=True))
    except TypeError:  # not one of OpenMMLab's
        return
    try:
        dataset.full_init()
        if len(dataset):
            return
        reason = 'the annotation file lists none'
    except (OSError, RuntimeError) as error:
        reason = error
    extensions = ' '.join(sorted(getattr(dataset, 'extensions', ())))
    where = 'sub-folders of the folder' if getattr(dataset, 'with_label', False) else 'folder'
    folder = getattr(dataset, 'img_prefix', dataset.data_prefix)  # mmdet and mmseg have only the second
    root, prefix = cfg.get('data_root') or '', cfg.get('data_prefix')
    way_out = 'Give the folder that has them, as data_root=PATH or in data_prefix'
    if getattr(dataset, 'with_label', False):
        way_out += '; a folder without sub-folders for the classes needs with_label=False'
    elif isinstance(prefix, str) and os.path.isdir(root) and not os.path.isdir(os.path.join(root, prefix)):
        way_out = f'{root} holds no {prefix}/: for the images in it: --cfg-options data_prefix='
    raise FileNotFoundError(f'there are no images in the {where} {folder!r} (looked for {extensions}): '
                            f'{reason}. {way_out}')


@DATASETS.register_module()
class ReproducibleDataset(Dataset):
    """Wrap a dataset so that each sample's random numbers come from (seed, epoch, index) alone.

    Number of workers, ranks and interruptions then change nothing. The index is that of
    :class:`EpochSampler`, ``epoch * len(dataset) + index``. Reading a sample seeds the generators of
    the process that reads it.

    A file that cannot be read is replaced by the next readable one and remembered in memory that all
    workers share. For a sample that the pipeline leaves out on purpose, mmengine draws another.

    Args:
        dataset (dict | Dataset): The dataset of files, with its pipeline, or a wrapper around such:
            mmengine's ConcatDataset, RepeatDataset and ClassBalancedDataset, mmdet's and mmseg's
            MultiImageMixDataset.
        seed (int): Seed of the augmentation and of the masks, until ``set_seed`` gives another.

    Raises:
        FileNotFoundError, ValueError: See ``build_images``.
        RuntimeError: By an item, when more than a tenth of the files (and more than one) are bad.
    """

    def __init__(self, dataset, seed=0):
        self.dataset = build_images(dataset) if isinstance(dataset, dict) else dataset
        self._leaves = guard(self.dataset, self._report)
        # Shared, so that workers that run already report their finds and see another seed.
        self._bad = torch.zeros(sum(map(len, self._leaves)), dtype=torch.uint8).share_memory_()
        self._seed = torch.tensor(seed).share_memory_()

    @property
    def metainfo(self):
        """Meta information of the wrapped dataset."""
        return self.dataset.metainfo

    @property
    def num_files(self):
        """Number of different files."""
        return len(self._bad)

    def set_seed(self, seed):
        """Take another seed, in the workers too."""
        self._seed.fill_(seed)

    def get_data_info(self, index):
        """What the wrapped dataset knows of a file before reading it, in any epoch."""
        return self.dataset.get_data_info(index % len(self))

    @property
    def shard_sizes(self):
        """Number of images in each shard, list[int]; ValueError where not all images are in shards."""
        sizes = [size for leaf in self._leaves for size in getattr(leaf, 'shard_sizes', ())]
        if not sizes or sum(sizes) != len(self):
            raise ValueError('window is for images that are all in shards, of tools/make_shards.py: '
                             'shards=DIR, or no window')
        return sizes

    def fetch(self, shards, together):
        """Begin to fetch shards, by their numbers in ``shard_sizes``: see :class:`ShardedImages`."""
        first = 0
        for leaf in self._leaves:
            last = first + len(leaf.shard_sizes)
            leaf.fetch([shard - first for shard in shards if first <= shard < last], together)
            first = last

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        epoch, index = divmod(index, len(self))
        seed_sample(int(self._seed), epoch, index)
        return self.dataset[index]

    def __iter__(self):
        """The samples of epoch 0; Python would go on for ever, since every index is one of some epoch."""
        return map(self.__getitem__, range(len(self)))

    def _report(self, error):
        self._bad[error.number] = 1
        self.check_bad_files()

    def _reason(self, number):
        """Read a file again: its path, and why that fails."""
        for leaf in self._leaves:
            if number < len(leaf):
                break
            number -= len(leaf)
        info = leaf.get_data_info(number)
        try:
            leaf.pipeline.read(info)
        except UnreadableFile as error:
            return info['img_path'], error.reason
        return info['img_path'], 'could be read at the second try'

    def _complaint(self):
        bad = self._bad.nonzero().flatten()
        first = named(f'{path} ({reason})' for path, reason in map(self._reason, bad[:5].tolist()))
        return (f'{len(bad)} of {self.num_files} images cannot be read, more than a tenth. The first: '
                f'{first}. Repair them, or remove them from the folder or the annotation file')

    def check_bad_files(self):
        """Raise RuntimeError when more than a tenth of the files, and more than one, are bad."""
        if int(self._bad.sum()) > max(1, self.num_files // 10):
            raise RuntimeError(self._complaint())

    def gather_bad_files(self):
        """Make the bad files of every rank known to all: to be called by all ranks."""
        all_reduce(self._bad, op='max')

    def bad_files(self):
        """All files found bad so far, by any worker.

        Returns:
            dict[str, str]: Path to reason. The reason is found by reading the file again.
        """
        return dict(map(self._reason, self._bad.nonzero().flatten().tolist()))
