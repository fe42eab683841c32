"""Training loops that continue where they stopped, with the same numbers."""
import random
from itertools import islice

import numpy as np
import torch
from mmengine.dist import broadcast, get_rank
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmpretrain.registry import LOOPS

from cae_mm.datasets import EndlessSampler, EpochSampler, ReproducibleDataset
from cae_mm.engine.batch_size import accumulated


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """An EpochBasedTrainLoop whose iterations do not depend on interruptions.

    Resumed from a checkpoint written in the middle of an epoch, it goes on with the next batch of
    that epoch: an :class:`EpochSampler` skips what was seen, with any other one the batches are
    loaded and dropped. Before each iteration the random generators are seeded from
    (seed, iteration, rank), so that drop path, Gumbel noise and mixup repeat without saved states.

    Where gradients accumulate over several batches, an epoch of an :class:`EpochSampler` ends with a
    whole step, as in the official fine-tuning; a checkpoint then holds no half-accumulated step.

    Args: those of :class:`mmengine.runner.EpochBasedTrainLoop`.

    Raises:
        TypeError: when dataset and sampler do not fit.
        ValueError: when the images do not make one batch, or one accumulated step; when the
            checkpoint's iteration lies outside its epoch, because the data set, the batch size or
            the number of processes changed.
    """

    def __init__(self, runner, dataloader, max_epochs: int, **kwargs):
        super().__init__(runner, dataloader, max_epochs, **kwargs)
        check_sampler(self.dataloader, endless=False)
        sampler, batch_size = self.dataloader.sampler, self.dataloader.batch_size
        if accumulated(runner) > 1 and hasattr(sampler, 'set_multiple'):
            sampler.set_multiple(accumulated(runner) * batch_size)
            self._max_iters = self._max_epochs * len(self.dataloader)
        if not len(self.dataloader):
            raise ValueError(f'{len(sampler)} images per process do not make one batch of {batch_size}: '
                             'lower train_dataloader.batch_size')

    def run(self):
        """Give the run's seed to the data, and train."""
        set_data_seed(self.runner, self.dataloader)
        return super().run()

    def run_epoch(self) -> None:
        """Train the batches of one epoch that were not yet trained."""
        length = len(self.dataloader)
        start = self._iter - self._epoch * length
        if not 0 <= start <= length:
            raise ValueError(
                f'the checkpoint is at iteration {self._iter} in epoch {self._epoch}, which does '
                f'not fit {length} batches per epoch, and does not say how many images it had in one: '
                'resume with the data set, batch size and number of processes of the interrupted run, or '
                'start anew with load_from')
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        sampler = self.dataloader.sampler
        if start and hasattr(sampler, 'set_start'):
            sampler.set_start(start * self.dataloader.batch_size)
            batches = enumerate(self.dataloader, start)
        else:
            batches = islice(enumerate(self.dataloader), start, None)
        for idx, data_batch in batches:
            self.run_iter(idx, data_batch)

        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx, data_batch) -> None:
        """Seed the random generators and train one batch."""
        seed_iteration(self.runner.seed, self._iter)
        super().run_iter(idx, data_batch)


@LOOPS.register_module()
class ResumableIterLoop(IterBasedTrainLoop):
    """An IterBasedTrainLoop whose iterations do not depend on interruptions.

    The random generators are seeded as in :class:`ResumableEpochLoop`. With an ``EndlessSampler`` and
    a ``ReproducibleDataset`` the batches go on where they stopped too. Where gradients accumulate
    over several batches, let checkpoints be written after whole steps.

    Args: those of :class:`mmengine.runner.IterBasedTrainLoop`.

    Raises:
        TypeError: when dataset and sampler do not fit.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        check_sampler(self.dataloader, endless=True)

    def run(self):
        """Give the run's seed to the data, and train."""
        set_data_seed(self.runner, self.dataloader)
        # The one that mmengine made in the constructor may have read samples of another seed.
        self.dataloader_iterator = type(self.dataloader_iterator)(self.dataloader)
        return super().run()

    def run_iter(self, data_batch) -> None:
        """Seed the random generators and train one batch."""
        seed_iteration(self.runner.seed, self._iter)
        super().run_iter(data_batch)


def sampler_of(dataloader):
    """The sampler, also that of a batch sampler."""
    return getattr(dataloader.batch_sampler, 'sampler', dataloader.sampler)


def check_sampler(dataloader, endless: bool) -> None:
    """Refuse a sampler that does not count the epochs of the data set as it and the loop expect.

    Raises:
        TypeError: naming the sampler to take.
    """
    sampler = sampler_of(dataloader)
    ours = isinstance(sampler, EpochSampler)
    repeats = not ours and isinstance(dataloader.dataset, ReproducibleDataset)
    if repeats or ours and isinstance(sampler, EndlessSampler) != endless:
        raise TypeError(
            f"{type(sampler).__name__} with a training by {'iterations' if endless else 'epochs'}"
            f"{' and a ReproducibleDataset, which would repeat its first epoch' * repeats}: "
            f"train_dataloader.sampler=dict(type='mmpretrain.{'Endless' if endless else 'Epoch'}Sampler')")


def set_data_seed(runner, dataloader) -> None:
    """Give the run's seed, that of the first rank, to the sampler and the dataset that take one.

    Only now is it final: a resumed run has that of its checkpoint.
    """
    seed = torch.tensor(runner.seed)
    broadcast(seed)  # with diff_rank_seed, each rank has added its number
    for part in (sampler_of(dataloader), dataloader.dataset):
        if hasattr(part, 'set_seed'):
            part.set_seed(int(seed))


def seed_iteration(seed: int, iteration: int) -> None:
    """Seed Python, numpy and torch from (seed, iteration, rank)."""
    words = np.random.SeedSequence((seed, iteration, get_rank())).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.manual_seed(int(words[2]))
