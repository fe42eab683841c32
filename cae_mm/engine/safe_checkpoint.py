"""Checkpoints that a kill at any moment leaves whole."""
import errno
import json
import logging
import shutil
import time
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmpretrain.registry import HOOKS

from cae_mm.atomic import TEMPORARY
from cae_mm.engine import work_dir
from cae_mm.engine.work_dir import INTERRUPTED, RECORD, VALIDATION_DUE, checkpoint_dir, numbered, on_main
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
        kwargs: those of :class:`mmengine.hooks.CheckpointHook`.

    Raises:
        FloatingPointError: naming the first weight that is not finite, when it would be saved.
        OSError: when there is no room for the checkpoints.
    """

    def __init__(self, *args, minutes: float | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.minutes, self.saved = minutes, time.monotonic()

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
        super().before_train(runner)
        on_main(self._make_room, runner)
        self.saved = time.monotonic()

    def _make_room(self, runner) -> None:
        folder = Path(self.out_dir)
        folder.mkdir(parents=True, exist_ok=True)
        leftovers = {*folder.glob(f'*{TEMPORARY}*'), *Path(runner.work_dir).glob(f'*{TEMPORARY}*'),
                     *Path(runner.work_dir).glob(f'*/vis_data/*{TEMPORARY}*')}
        for leftover in leftovers:
            runner.logger.info(f'Removing {leftover}, left unfinished by a killed run')
            leftover.unlink()
        size, free = size_of_checkpoint(runner), shutil.disk_usage(folder).free
        kept = len(numbered(folder, self.filename_tmpl))
        files = 1 if self.max_keep_ckpts < 1 else max(1, self.max_keep_ckpts + 1 - kept)
        if free < files * size:
            raise OSError(
                errno.ENOSPC, f'{files} checkpoints of {size:,} bytes are to come, {free:,} are free: '
                'make room, lower default_hooks.checkpoint.max_keep_ckpts, or take another --work-dir',
                str(folder))

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Refuse to save weights that are not finite; ``seal`` what is saved."""
        for name, weight in checkpoint['state_dict'].items():
            if torch.is_tensor(weight) and not torch.isfinite(weight).all():
                record = Path(runner.work_dir) / RECORD
                raise FloatingPointError(
                    f'{name} is not finite at iteration {runner.iter + 1}: nothing was saved, the last '
                    f'good checkpoint is {record.read_text() if record.is_file() else "none"}')
        checkpoint.update(seal(checkpoint))

    def save_interrupted(self, runner, iteration: int, validation_due: bool) -> None:
        """Save between checkpoints, after ``iteration`` steps; the next checkpoint takes its place."""
        just_now = self.last_ckpt and Path(self.last_ckpt).name == self.filename_tmpl.format(iteration)
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
        self._save(runner, self.filename_tmpl.format(step), meta)
        if self.max_keep_ckpts > 0:
            runner.message_hub.update_info('keep_ckpt_ids', kept[-self.max_keep_ckpts:])
            for outdated in kept[:-self.max_keep_ckpts]:
                path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(outdated))
                if is_main_process() and self.file_backend.isfile(path):
                    self.file_backend.remove(path)

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

    def _save(self, runner, name: str, meta: dict) -> None:
        """Write a checkpoint and its name, and remove those of earlier interruptions."""
        runner.call_hook('before_checkpoint')
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir, name, self.file_client_args, save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler, meta=meta, by_epoch=self.by_epoch,
            backend_args=self.backend_args, **self.args)
        self.saved = time.monotonic()
        if is_main_process():
            self._replace_interrupted(runner, self.last_ckpt)

    def after_train(self, runner) -> None:
        """Name the last checkpoint, where the run went on from an interruption after that."""
        super().after_train(runner)
        last = Path(self.out_dir, self.filename_tmpl.format(runner.epoch if self.by_epoch else runner.iter))
        if is_main_process() and last.is_file() and numbered(last.parent, INTERRUPTED):
            self._replace_interrupted(runner, str(last))

    def _replace_interrupted(self, runner, path: str) -> None:
        work_dir.record_checkpoint(runner.work_dir, path)
        for other in numbered(Path(self.out_dir), INTERRUPTED):
            if other.name != Path(path).name:
                other.unlink()


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
