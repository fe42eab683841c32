"""The order of the samples."""
import torch
from mmengine.dist import get_dist_info
from mmpretrain.registry import DATA_SAMPLERS
from torch.utils.data import Sampler

from .reproducible import ReproducibleDataset


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

    Raises:
        TypeError: For another dataset, which would not find the samples of the second epoch.
    """

    def __init__(self, dataset, shuffle=True, seed=0, round_up=False):
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
        if self.shuffle:
            # seed + epoch would give all seeds the same orders, in other epochs.
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(len(self.dataset), generator=generator)
        else:
            order = torch.arange(len(self.dataset))
        # The modulo repeats the first samples where round_up asks for more than there are.
        mine = torch.arange(self.rank, self.num_samples * self.world_size, self.world_size)
        indices = order[mine % len(order)] + self.epoch * len(order)
        start, self._start = self._start, 0
        return iter(indices[start:].tolist())

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
