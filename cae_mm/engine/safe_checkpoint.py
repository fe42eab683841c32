"""Checkpoints that a kill at any moment leaves whole."""
import errno
import json
import logging
import shutil
import time
from functools import partial
from pathlib import Path

import torch
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import CheckpointHook
from mmpretrain.registry import HOOKS
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor

from cae_mm.atomic import TEMPORARY, remove
from cae_mm.engine import work_dir
from cae_mm.engine.sharded_checkpoint import PartsWriter, take_arrays, temporary
from cae_mm.engine.sharding import ShardedModel
from cae_mm.engine.work_dir import (
    INTERRUPTED,
    RECORD,
    VALIDATION_DUE,
    checkpoint_dir,
    forms,
    numbered,
    on_main,
)
from cae_mm.parts import REST
from cae_mm.seal import seal


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """A CheckpointHook that never leaves a run without a good checkpoint.

    Files are written atomically, outdated checkpoints are removed only after the new one is there,
    and weights that are not finite are not written. Remains of a killed run are removed, and the room
    that the checkpoints will take is looked for, before training starts. A run that resumes without
    naming a checkpoint does so from the newest whole one, and tells what it takes from there in place of
    the config's.

    Args:
        minutes (float, optional): save whenever this long has passed without a checkpoint, too; the next
            one takes the place of such a file. A ``SignalHook`` sees to it.
        sharded (bool): of a ``ShardedModel`` write folders, ``epoch_N.dcp``, in which each process writes
            its part while the training goes on. The next one, a signal and the end wait for that.
        kwargs: those of :class:`mmengine.hooks.CheckpointHook`.

    Raises:
        FloatingPointError: naming the first weight that is not finite, when it would be saved.
        OSError: when there is no room for the checkpoints.
        ValueError: for ``sharded`` checkpoints of a model that is not shared out.
    """

    def __init__(self, *args, minutes: float | None = None, sharded: bool = False, **kwargs):
        super().__init__(*args, **kwargs)
        self.minutes, self.saved, self.sharded = minutes, time.monotonic(), sharded
        self.arrays = self.writing = None  # of a checkpoint in parts: before it is written, and then

    def due(self) -> bool:
        """Whether a checkpoint is due by the clock, that of the first process."""
        return (self.minutes is not None and is_main_process()
                and time.monotonic() >= self.saved + 60 * self.minutes)

    def before_run(self, runner) -> None:
        """Find the checkpoint to resume from, where the command line has not done so."""
        if runner._resume and runner._load_from is None:
            path, _, notes = on_main(work_dir.find, Path(runner.work_dir),
                                     checkpoint_dir(runner.work_dir, self.out_dir), self.filename_tmpl)
            for note in notes:
                runner.logger.warning(note)
            runner._resume, runner._load_from = path is not None, path and str(path)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Tell what of the config a resumed run ignores."""
        if runner._resume:
            ignored = '; '.join(ignored_settings(runner, checkpoint))
            runner.logger.log(
                logging.WARNING if ignored else logging.INFO,
                'Weights, optimizer, rates, schedules, seed and position are those of the checkpoint, the '
                'rest is that of the config' + (
                    f', of which this is ignored: {ignored}. To use it, start from the weights alone: '
                    '--cfg-options load_from=CHECKPOINT' if ignored else ''))

    def before_train(self, runner) -> None:
        """Find the output directory, remove unfinished files of a killed run, and look for room."""
        folder, info = checkpoint_dir(runner.work_dir, self.out_dir), runner.message_hub.runtime_info
        # A best checkpoint of the directory from which this one was copied stays there.
        for key in [key for key in info if key.startswith('best_ckpt') and info[key]]:
            info[key] = str(folder / Path(info[key]).name)
        if 'keep_ckpt_ids' in info:  # A kill came after the last one was named.
            outdated = self._outdated(info['keep_ckpt_ids'])
            info['keep_ckpt_ids'] = info['keep_ckpt_ids'][len(outdated):]
            on_main(remove_checkpoints, folder, outdated)
        super().before_train(runner)
        on_main(self._make_room, runner)
        if self.sharded:
            if not isinstance(runner.model, ShardedModel):
                raise ValueError('default_hooks.checkpoint.sharded=True is for a model that is shared out: '
                                 'give --fsdp too, or leave it out')
            self.group = torch.distributed.new_group(backend='gloo')
        self.saved = time.monotonic()

    def _make_room(self, runner) -> None:
        folder = Path(self.out_dir)
        folder.mkdir(parents=True, exist_ok=True)
        leftovers = {*folder.glob(f'*{TEMPORARY}*'), *Path(runner.work_dir).glob(f'*{TEMPORARY}*'),
                     *Path(runner.work_dir).glob(f'*/vis_data/*{TEMPORARY}*')}
        for leftover in leftovers:
            runner.logger.info(f'Removing {leftover}, left unfinished by a killed run')
            remove(leftover)
        size, free = size_of_checkpoint(runner), shutil.disk_usage(folder).free
        kept = len(numbered(folder, self.filename_tmpl))
        files = 1 if self.max_keep_ckpts < 1 else max(1, self.max_keep_ckpts + 1 - kept)
        if free < files * size:
            raise OSError(
                errno.ENOSPC, f'{files} checkpoints of {size:,} bytes are to come, {free:,} are free: '
                'make room, lower default_hooks.checkpoint.max_keep_ckpts, or take another --work-dir',
                str(folder))

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Refuse to save weights that are not finite; take those in parts out, ``seal`` what is left."""
        weights = {name: weight.to_local() if isinstance(weight, DTensor) else weight
                   for name, weight in checkpoint['state_dict'].items() if torch.is_tensor(weight)}
        wrong = next((name for name, weight in weights.items() if not torch.isfinite(weight).all()), None)
        if self.arrays is not None:
            wrong = next(filter(None, all_gather_object(wrong)), None)
            self.arrays = take_arrays(checkpoint)
        if wrong:
            record = Path(runner.work_dir) / RECORD
            raise FloatingPointError(
                f'{wrong} is not finite at iteration {runner.iter + 1}: nothing was saved, the last '
                f'good checkpoint is {record.read_text() if record.is_file() else "none"}')
        checkpoint.update(seal(checkpoint))

    def save_interrupted(self, runner, iteration: int, validation_due: bool) -> None:
        """Save between checkpoints, after ``iteration`` steps; the next checkpoint takes its place."""
        just_now = self.last_ckpt == str(self._path(self.filename_tmpl.format(iteration)))
        if just_now and not self.by_epoch and not validation_due:
            return
        runner.message_hub.update_info(VALIDATION_DUE, validation_due)
        self._save(runner, INTERRUPTED.format(iteration), dict(epoch=runner.epoch, iter=iteration))

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        kept = runner.message_hub.runtime_info.get('keep_ckpt_ids', ())
        kept = [*(other for other in kept if other != step), step]
        runner.message_hub.update_info(VALIDATION_DUE, False)
        if self.max_keep_ckpts > 0:
            runner.message_hub.update_info('keep_ckpt_ids', kept)
        outdated = self._outdated(kept)
        self._save(runner, self.filename_tmpl.format(step), meta, outdated)
        if self.max_keep_ckpts > 0:
            runner.message_hub.update_info('keep_ckpt_ids', kept[len(outdated):])

    def _outdated(self, kept: list[int]) -> list[str]:
        numbers = kept[:-self.max_keep_ckpts] if self.max_keep_ckpts > 0 else []
        return [self.filename_tmpl.format(number) for number in numbers]

    def _save_best_checkpoint(self, runner, metrics) -> None:
        """Save the best checkpoint of a training, and only then remove the former one."""
        if not self.save_best or not hasattr(self, 'file_backend'):  # which comes with training
            return
        outdated, self.file_backend.remove = [], lambda path: outdated.append(path)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            del self.file_backend.remove
        for path in outdated:
            if path not in runner.message_hub.runtime_info.values():
                self.file_backend.remove(path)

    def _path(self, name: str) -> Path:
        return forms(Path(self.out_dir, name))[self.sharded]

    def _save(self, runner, name: str, meta: dict, outdated: list[str] = ()) -> None:
        """Write a checkpoint and its name, and remove those whose place it takes."""
        self.wait()
        runner.call_hook('before_checkpoint')
        path = self._path(name)
        self.last_ckpt = str(path)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        done, file, options = partial(self._name, runner.work_dir, path, outdated), name, {}
        if self.sharded:
            self.arrays, file, options = {}, f'{temporary(path).name}/{REST}', dict(in_parts=True)
        runner.save_checkpoint(
            self.out_dir, file, self.file_client_args, save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler, meta=meta, by_epoch=self.by_epoch,
            backend_args=self.backend_args, **options, **self.args)
        if self.sharded:
            arrays, self.arrays = self.arrays, None
            self.writing = dcp.async_save(arrays, storage_writer=PartsWriter(path, done),
                                          process_group=self.group)
        elif is_main_process():
            done()
        self.saved = time.monotonic()

    def wait(self) -> None:
        """Wait for what is written in the background, if anything; raise what kept a process from it."""
        writing, self.writing = self.writing, None
        try:
            if writing:
                writing.result()
        except CheckpointException as error:
            raise next(iter(error.failures.values()))[0] from error

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        """End here where a checkpoint could not be written; save where that is due."""
        if self.writing and self.writing.done():
            self.wait()
        super().after_train_iter(runner, *args, **kwargs)

    def after_train(self, runner) -> None:
        """Name the last checkpoint, where the run went on from an interruption after that."""
        self.wait()
        super().after_train(runner)
        last = self._path(self.filename_tmpl.format(runner.epoch if self.by_epoch else runner.iter))
        if is_main_process() and last.exists() and numbered(last.parent, INTERRUPTED):
            self._name(runner.work_dir, last)

    def _name(self, folder: str, path: Path, outdated: list[str] = ()) -> None:
        work_dir.record_checkpoint(folder, str(path))
        for other in numbered(path.parent, INTERRUPTED):
            if other != path:
                remove(other)
        remove_checkpoints(path.parent, outdated)


def remove_checkpoints(folder: Path, names: list[str]) -> None:
    """Remove checkpoints, files or in parts, by the names of files, as far as they are there."""
    for path in (form for name in names for form in forms(folder / name)):
        if path.exists():
            remove(path)


def size_of_checkpoint(runner) -> int:
    """About the bytes of a checkpoint: weights, and as much again for each state of the optimizer."""
    def bytes_of(tensors):
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    states = sum((2 if 'betas' in group else bool(group.get('momentum'))) * bytes_of(group['params'])
                 for group in runner.optim_wrapper.param_groups)
    return bytes_of(runner.model.state_dict().values()) + states


def ignored_settings(runner, checkpoint: dict) -> list[str]:
    """Settings of optimizer and schedules for which a checkpoint has others than the config."""
    found = {}

    def compare(label, saved, new):
        for key, value in new.items():
            # Tuples were written as lists.
            if key in saved and json.dumps(saved[key], default=repr) != json.dumps(value, default=repr):
                found.setdefault(f'{label}{key}', f'{label}{key} {value!r} (checkpoint: {saved[key]!r})')

    def constant(group):
        return {key.removeprefix('initial_'): value for key, value in group.items()
                if f'initial_{key}' not in group and key != 'params'}

    groups = checkpoint.get('optimizer', {}).get('param_groups', ())
    for saved, new in zip(groups, runner.optim_wrapper.param_groups, strict=False):
        compare('', constant(saved), constant(new))
    before, now = checkpoint.get('param_schedulers', ()), runner.param_schedulers or ()
    for saved, new in zip(before, now, strict=False):
        compare(f'{type(new).__name__}.', saved, {
            key: value for key, value in new.state_dict().items()
            if not key.startswith('_') and key not in ('last_step', 'base_values')})
    if len(before) != len(now):
        found['number'] = f'{len(now)} param_scheduler (checkpoint: {len(before)})'
    return list(found.values())
