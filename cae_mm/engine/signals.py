"""Signals that end a training, which finishes its step and saves first."""
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from mmengine.dist import all_reduce, barrier, get_comm_device, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, IterBasedTrainLoop
from mmpretrain.registry import HOOKS

from cae_mm.engine.batch_size import accumulated
from cae_mm.engine.safe_checkpoint import SafeCheckpointHook
from cae_mm.engine.work_dir import VALIDATION_DUE

SIGNALS = [getattr(signal, name) for name in ('SIGTERM', 'SIGINT', 'SIGHUP') if hasattr(signal, name)]
SENDER_TOLD = hasattr(signal, 'sigwaitinfo')  # not on macOS
COMMAND = 'CAE_MM_COMMAND'  # in the environment: what was typed, where that is not Python's command line


@HOOKS.register_module()
class SignalHook(Hook):
    """Let SIGTERM, SIGINT and SIGHUP end a training without a loss, with exit code 128 + signal.

    The step is finished, a whole one where gradients accumulate, and a checkpoint written from which
    ``--resume`` goes on with the next batch; a validation is cut short and done again then. Before the
    first step, and at a second signal, the process ends at once. One rank's signal ends all ranks: they
    tell each other with each step and hear of it with the next one, so that none waits. Processes that load
    data leave signals to the training. A signal that is ignored, as by ``nohup``, stays so.
    """

    priority = 'LOWEST'  # after the checkpoint hook's VERY_LOW

    def before_run(self, runner) -> None:
        """Keep signals from the processes that load data."""
        for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
            if isinstance(loop, BaseLoop):
                loader = loop.dataloader
                loader.worker_init_fn = partial(start_worker, loader.worker_init_fn)
                loader._get_iterator = partial(start_workers, loader._get_iterator)

    def before_train(self, runner) -> None:
        """Take the signals over, and do a validation that one has cut short."""
        self.received = self.agreed = 0
        hooks = [hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)]
        self.checkpoint = hooks[0] if hooks else None
        self.save_due = False
        self.pending, self.stepped, self.process = None, False, os.getpid()
        self.stream = torch.cuda.Stream() if torch.cuda.is_available() else None
        self.handlers = {}
        if threading.current_thread() is threading.main_thread():
            self.handlers = {number: signal.signal(number, self._receive) for number in SIGNALS
                             if signal.getsignal(number) != signal.SIG_IGN}
        if runner.message_hub.runtime_info.get(VALIDATION_DUE) and runner.val_loop is not None:
            runner.val_loop.run()
            runner.message_hub.update_info(VALIDATION_DUE, False)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """From now on there is something to lose."""
        self.stepped = True

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """End the training after a whole step, or save where that is due by the clock."""
        done, loop = runner.iter + 1, runner.train_loop
        ends = self._agree()
        if not (ends or self.save_due) or done % accumulated(runner):
            return
        due = done >= loop.val_begin and (done % loop.val_interval == 0 or done == loop.max_iters)
        validation_due = due and runner._val_loop is not None and isinstance(loop, IterBasedTrainLoop)
        if ends:
            self._end(runner, done, validation_due)
        self.save_due = False
        self.checkpoint.save_interrupted(runner, done, validation_due)

    def before_val_epoch(self, runner) -> None:
        """Find the number of batches that all ranks have."""
        number = torch.tensor(len(runner.val_dataloader))
        all_reduce(number, 'min')
        self.common = int(number)

    def after_val_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """End the training in the middle of a validation."""
        if getattr(self, 'stepped', False) and batch_idx < self.common and self._agree():
            self._end(runner, runner.iter, True)

    def after_train(self, runner) -> None:
        """Give the signals back; end here when one came after the last step."""
        if self.pending:
            self.pending[0].wait()
        self.give_back()
        self.stepped = False
        if self.received:
            raise SystemExit(128 + self.received)

    def give_back(self) -> None:
        """Let those have the signals who had them before the training."""
        for number, handler in getattr(self, 'handlers', {}).items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame) -> None:
        if os.getpid() != self.process:  # a child that has not made its own arrangements yet
            return
        if self.received:
            # torchrun passes on what its processes, being of its group, may have had already.
            if torch.distributed.is_torchelastic_launched() and time.monotonic() < self.since + 3:
                return
            os._exit(128 + number)
        self.received, self.since = number, time.monotonic()
        if not self.stepped:
            raise SystemExit(128 + number)

    def _agree(self) -> int:
        """The signal that ends all ranks, 0 for none; and whether they save."""
        # What a rank says: twice its signal, and 1 where a checkpoint is due.
        said = 2 * self.received or int(
            self.stepped and not self.save_due and self.checkpoint is not None and self.checkpoint.due())
        heard = said
        if get_world_size() > 1:
            heard = 0
            if self.pending:
                work, flag = self.pending
                with torch.cuda.stream(self.stream):  # Reading waits for the step before, not for this one.
                    work.wait()
                    heard = int(flag)
            flag = torch.full((1,), 0 if heard == 1 == said else said, device=get_comm_device())
            work = torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, async_op=True)
            self.pending = work, flag
        self.save_due = self.save_due or heard == 1
        self.agreed = max(self.agreed, heard // 2)
        return self.agreed

    def _end(self, runner, iteration: int, validation_due: bool) -> None:
        number, hook = self.agreed or self.received, self.checkpoint
        if hook:
            hook.save_interrupted(runner, iteration, validation_due)
            hook.wait()
        runner.logger.warning(
            f'{signal.Signals(number).name}: ended after iteration {iteration}. ' + (
                f'{hook.last_ckpt} is written; to go on: {command()}' if hook else
                'Nothing is saved: the config has no SafeCheckpointHook'))
        barrier()
        raise SystemExit(128 + number)


def command() -> str:
    """The command line that makes this run go on."""
    typed = os.environ.get(COMMAND, '').strip() or shlex.join(sys.orig_argv)
    return typed if typed.endswith(' --resume') else f'{typed} --resume'


@contextmanager
def signals_end() -> Iterator[None]:
    """Let signals end this process at once.

    While it waits for others, which may have ended, Python calls no handlers.
    """
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in handlers.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def start_workers(get_iterator: Callable) -> Iterator:
    """Start processes that load data, in which their parent's SIGTERM waits for ``start_worker``.

    Python's end sends one and waits: one that comes before they can tell whose it is would be lost.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]) if SENDER_TOLD else None
    try:
        return get_iterator()
    finally:
        if SENDER_TOLD:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def start_worker(init: Callable | None, worker_id: int) -> None:
    """Initialise a process that loads data, which ends when its parent says so, and by no other signal."""
    for number in set(SIGNALS) - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    if SENDER_TOLD:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_wait_for_parent, daemon=True).start()
    if init is not None:
        init(worker_id)


def _wait_for_parent() -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)
