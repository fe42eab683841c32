"""Processes that wait for one that does not come."""
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS
from torch.distributed import PrefixStore
from torch.distributed.distributed_c10d import _get_default_store

KEPT = 10.  # seconds between two looks


@HOOKS.register_module()
class HangHook(Hook):
    """End a training in which a process does not come to where the others wait for it, and name it.

    Each process tells the others how far it is. One that has not come on for ``minutes`` reads this of all;
    of those that are farthest the first says which ones are behind, and ends with exit code 1, upon which
    the launcher ends or restarts all. Validation and the writing of checkpoints count.

    Args:
        minutes (float): less than NCCL's own 10, after which it ends all without a name.
    """

    priority = 'VERY_HIGH'

    def __init__(self, minutes: float = 8.):
        self.minutes = minutes

    def before_train(self, runner) -> None:
        """Start to watch."""
        self.place, self.moved = None, time.monotonic()
        if get_world_size() > 1:
            # A connection of its own: the one of the process may be what waits.
            prefix = f'hangs/{os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)}'
            self.store = PrefixStore(prefix, _get_default_store().clone())
            self.ended = threading.Event()
            threading.Thread(target=self._watch, args=(runner.logger,), daemon=True).start()
