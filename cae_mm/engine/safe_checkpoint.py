"""Checkpoints that a kill at any moment leaves whole."""
import os
from pathlib import Path

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import CheckpointHook
from mmpretrain.registry import HOOKS

from cae_mm.atomic import TEMPORARY, write_atomically
from cae_mm.seal import seal


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """A CheckpointHook that never leaves a run without a good checkpoint.

    Files are written atomically, outdated checkpoints are removed only after the new one is there,
    and weights that are not finite are not written. Remains of a killed run are removed, and
    ``last_checkpoint`` is repaired, before training starts.

    Args: those of :class:`mmengine.hooks.CheckpointHook`.

    Raises:
        FloatingPointError: naming the first weight that is not finite, when it would be saved.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.backend_args is None and '://' not in str(self.out_dir):
            self.backend_args = dict(backend='atomic_local')
        if self.max_keep_ckpts > 0:
            self.max_keep_ckpts += 1  # mmengine makes room before it writes: there is always room for one

    def before_run(self, runner) -> None:
        """Name the newest checkpoint in ``last_checkpoint`` if a kill left it empty."""
        record, folder = Path(runner.work_dir) / 'last_checkpoint', Path(runner.work_dir)
        if self.out_dir is not None:
            folder = Path(self.out_dir) / folder.name
        if is_main_process() and record.is_file() and not record.read_text():
            files = folder.glob(self.filename_tmpl.format('*'))
            write_atomically(str(max(files, key=os.path.getmtime, default='')).encode(), record)
        barrier()

    def before_train(self, runner) -> None:
        """Find the output directory and remove unfinished files of a killed run."""
        super().before_train(runner)
        if is_main_process() and Path(self.out_dir).is_dir():
            for leftover in Path(self.out_dir).glob(f'*{TEMPORARY}*'):
                runner.logger.info(f'Removing {leftover}, left unfinished by a killed run')
                leftover.unlink()

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Refuse to save weights that are not finite; ``seal`` what is saved."""
        for name, weight in checkpoint['state_dict'].items():
            if torch.is_tensor(weight) and not torch.isfinite(weight).all():
                record = Path(runner.work_dir) / 'last_checkpoint'
                raise FloatingPointError(
                    f'{name} is not finite at iteration {runner.iter + 1}: nothing was saved, the last '
                    f'good checkpoint is {record.read_text() if record.is_file() else "none"}')
        checkpoint.update(seal(checkpoint))

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        runner.call_hook('before_checkpoint')
        super()._save_checkpoint_with_step(runner, step, meta)
        if 0 < self.max_keep_ckpts == len(self.keep_ckpt_ids):
            outdated = self.file_backend.join_path(
                self.out_dir, self.filename_tmpl.format(self.keep_ckpt_ids.popleft()))
            if is_main_process() and self.file_backend.isfile(outdated):
                self.file_backend.remove(outdated)
