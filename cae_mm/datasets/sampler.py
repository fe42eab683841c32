"""The order of the samples."""
from collections.abc import Iterator
from functools import partial
from itertools import cycle

import numpy as np
import torch
from mmengine.dist import get_dist_info
from mmpretrain.registry import DATA_SAMPLERS
from torch.utils.data import Sampler

from .reproducible import ReproducibleDataset

AHEAD = 2  # so many shards are fetched before they are read


def shuffled(number, *key):
    """A permutation of ``number`` that depends on nothing but whole numbers."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.randperm(number, generator=torch.Generator().manual_seed(int(state >> 1)))


@DATA_SAMPLERS.register_module()
class EpochSampler(Sampler):
    """Shuffle the whole dataset every epoch and give each rank its share, tagged with the epoch.

    It yields ``epoch * len(dataset) + index``, which :class:`ReproducibleDataset` takes apart, so
    that a worker knows the epoch without being told. Rank r takes positions r, r + ranks, ... of
    the order.

    Args:
        dataset (ReproducibleDataset): What is sampled.
        shuffle (bool): Whether the order is random (by seed and epoch) or that of the dataset.
        seed (int, optional): Seed of the order, equal on all ranks, until ``set_seed`` gives another.
            None, which mmengine passes when the ranks have seeds of their own, is 0.
        round_up (bool): What to do with a number of samples that the ranks do not divide: False
            leaves the last of the order out, True repeats the first.
        window (int, optional): Shuffle only images of so many shards, which come in random order: one
            after another begins, each of its images falls in one of ``window`` steps at random, and
            those of a step are shuffled. None shuffles the whole dataset.

    Raises:
        TypeError: For another dataset, which would not find the samples of the second epoch.
        ValueError: For a window and images that are not in shards.
    """

    def __init__(self, dataset, shuffle=True, seed=0, round_up=False, window=None):
        if not isinstance(dataset, ReproducibleDataset):
            raise TypeError(
                f'{type(self).__name__} counts the samples through all epochs, and '
                f"{type(dataset).__name__} has only those of one: dataset=dict(type='ReproducibleDataset', "
                "dataset=...) around it, or sampler=dict(type='DefaultSampler', shuffle=True)")
        self.rank, self.world_size = get_dist_info()
        self.dataset, self.shuffle = dataset, shuffle
        self.seed = 0 if seed is None else seed
        extra = self.world_size - 1 if round_up else 0
        self.num_samples = (len(dataset) + extra) // self.world_size
        self.epoch = self._start = 0
        self.window = window if shuffle else None
        self._sizes = dataset.shard_sizes if self.window else ()

    def set_epoch(self, epoch):
        """Choose the epoch (from 0) of the next iteration."""
        self.epoch = epoch

    def set_seed(self, seed):
        """Take another seed, equal on all ranks."""
        self.seed = seed

    def set_start(self, num_samples):
        """Let the next iteration, and only that, skip its first ``num_samples`` of this rank."""
        self._start = num_samples

    def set_multiple(self, num_samples):
        """Leave out what the samples of this rank have over a multiple of ``num_samples``.

        Raises:
            ValueError: When nothing would be left.
        """
        if self.num_samples < num_samples:
            raise ValueError(f'{self.num_samples} samples do not make a step of {num_samples}: lower '
                             'train_dataloader.batch_size or optim_wrapper.accumulative_counts')
        self.num_samples -= self.num_samples % num_samples

    def __iter__(self):
        start, self._start = self._start, 0
        size, ranks, first = len(self.dataset), self.world_size, 0
        # Positions in the order of all ranks. That begins anew where round_up asks for more than there are.
        position, end = self.rank + start * ranks, self.num_samples * ranks
        parts = cycle(self._windows() if self.window else [(size, self._whole)])
        while position < end:
            number, make = next(parts)
            if position < first + number:
                mine = make()[position - first:end - first:ranks]
                position += len(mine) * ranks
                for some in mine.split(2**14):  # a list of all would be 40 bytes for each
                    yield from (some + self.epoch * size).tolist()
            first += number

    def _whole(self):
        if not self.shuffle:
            return torch.arange(len(self.dataset))
        # seed + epoch would give all seeds the same orders, in other epochs.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return torch.randperm(len(self.dataset), generator=generator)

    def _windows(self) -> Iterator:
        """The order in steps: the number of samples of each, and what makes it, which may be skipped."""
        count, window = len(self._sizes), self.window
        order = shuffled(count, self.seed, self.epoch).tolist()
        for step in range(count + window - 1):
            # A shard is in window steps, with every window-th of its images in each.
            turns = {order[step - turn]: turn for turn in range(window) if 0 <= step - turn < count}
            number = sum(len(range(turn, self._sizes[shard], window)) for shard, turn in turns.items())
            soon = order[max(0, step - window + 1):step + 1 + AHEAD]
            yield number, partial(self._step, step, turns, soon)

    def _step(self, step, turns, soon):
        self.dataset.fetch(soon, self.window + AHEAD)
        parts = []
        for shard, turn in turns.items():
            images = shuffled(self._sizes[shard], self.seed, self.epoch, 1, shard)
            parts.append(sum(self._sizes[:shard]) + images[turn::self.window])
        images = torch.cat(parts)
        return images[shuffled(len(images), self.seed, self.epoch, 2, step)]

    def __len__(self):
        return self.num_samples


@DATA_SAMPLERS.register_module()
class EndlessSampler(EpochSampler):
    """The epochs of an :class:`EpochSampler` one after another, for training counted in iterations.

    A batch may hold the end of one epoch and the start of the next.

    Args: those of :class:`EpochSampler`.
    """

    def skip(self, num_samples):
        """Start with the sample of this rank that ``num_samples`` others precede."""
        self.epoch, self._start = divmod(num_samples, self.num_samples)

    def __iter__(self):
        while True:
            yield from super().__iter__()
            self.epoch += 1
