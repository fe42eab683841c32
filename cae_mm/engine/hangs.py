"""Processes that wait for one that does not come."""
import json
import os
import socket
import sys
import threading
import time
from logging import Logger
from pathlib import Path

from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS
from torch.distributed import PrefixStore
from torch.distributed.distributed_c10d import _get_default_store


@HOOKS.register_module()
class HangHook(Hook):
    """End a training in which a process does not come to where the others wait for it, and name it.

    Each process tells the others how far it is. One that has not come on for ``minutes``, be it in a step,
    in a validation or in saving, reads that of all; of those that are farthest the first says which ones
    are behind and ends with exit code 1, upon which the launcher ends or restarts all.

    Args:
        minutes (float): less than the 10 after which NCCL ends all without a name, and more than the
            longest step takes, with its compilation, or the writing of a checkpoint.
    """

    priority = 'VERY_HIGH'

    def __init__(self, minutes: float = 8.):
        self.minutes, self.done = minutes, None

    def before_train(self, runner) -> None:
        """Start to watch."""
        if get_world_size() == 1:
            return
        # On a connection of its own: that of the training may be what waits.
        self.store = PrefixStore(f'hangs/{os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)}',
                                 _get_default_store().clone())
        self.done = threading.Event()
        self._come(runner.iter, 0)
        threading.Thread(target=self._watch, args=(get_rank(), get_world_size(), runner.logger),
                         daemon=True).start()

    def _come(self, iteration: int, part: int) -> None:
        self.place, self.moved = 2 * iteration + part, time.monotonic()

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """The batch is there."""
        self._come(runner.iter, 1)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """The next batch is waited for."""
        self._come(runner.iter + 1, 0)

    def after_val_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Come on, at the same place of the training."""
        self.moved = time.monotonic()

    def after_train(self, runner) -> None:
        """There is nothing more to wait for."""
        if self.done:
            self.done.set()

    def _watch(self, rank: int, world_size: int, logger: Logger) -> None:
        told, me = None, f'{socket.gethostname()}, process {os.getpid()}'
        while not self.done.wait(min(5., 6 * self.minutes)):
            if told != self.place:
                told = self.place
                self.store.set(str(rank), f'{told} {me}')
            if time.monotonic() < self.moved + 60 * self.minutes:
                continue
            found = [self.store.get(str(other)).decode().partition(' ') for other in range(world_size)]
            places = [int(place) for place, _, _ in found]
            farthest = max(places)
            if rank == places.index(farthest):
                end(logger, self.minutes, farthest // 2 + 1, [
                    f'rank {other} ({found[other][2]}) is in iteration {place // 2 + 1}'
                    + ', without its data' * (place % 2 == 0)
                    for other, place in enumerate(places) if place < farthest])


def end(logger: Logger, minutes: float, iteration: int, behind: list[str]) -> None:
    """End this process with what it has found."""
    message = f'nothing has moved for {minutes:g} minutes, in iteration {iteration}: ' + (
        ', '.join(behind) if behind else 'no rank is behind, so look at the network between them')
    logger.error(message)
    if path := os.environ.get('TORCHELASTIC_ERROR_FILE'):  # torchrun has the last word
        details = dict(py_callstack='', timestamp=int(time.time()))
        text = json.dumps(dict(message=dict(message=f'cae_mm: {message}', extraInfo=details)))
        Path(path).write_text(text)
    else:
        print(f'cae_mm: {message}', file=sys.stderr, flush=True)
    os._exit(1)
