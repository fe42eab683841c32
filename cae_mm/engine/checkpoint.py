"""Checkpoints that a kill at any moment leaves whole."""
import os
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmpretrain.registry import HOOKS

TEMPORARY = '.partial-'


@register_backend('atomic_local')
class AtomicLocalBackend(LocalBackend):
    """A LocalBackend whose files appear complete or not at all.

    Bytes go to a temporary name in the same directory, to the disk, and then get their name.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write ``obj`` to ``filepath``, replacing a former file at once."""
        filepath = Path(filepath)
        filepath.parent.mkdir(parents=True, exist_ok=True)
        temporary = filepath.with_name(f'{filepath.name}{TEMPORARY}{os.getpid()}')
        with open(temporary, 'wb') as file:
            file.write(obj)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, filepath)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write the text ``obj`` to ``filepath``, replacing a former file at once."""
        self.put(obj.encode(encoding), filepath)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """A CheckpointHook that never leaves a run without a good checkpoint.

    Files are written atomically, ``last_checkpoint`` follows the file it names, outdated
    checkpoints are removed only then, and weights that are not finite are not written. Remains of
    a killed run are removed when training starts.

    Args: those of :class:`mmengine.hooks.CheckpointHook`.

    Raises:
        FloatingPointError: naming the first weight that is not finite, when it would be saved.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.backend_args is None and '://' not in str(self.out_dir):
            self.backend_args = dict(backend='atomic_local')

    def before_train(self, runner) -> None:
        """Find the output directory and remove unfinished files of a killed run."""
        super().before_train(runner)
        if is_main_process() and Path(self.out_dir).is_dir():
            for leftover in Path(self.out_dir).glob(f'*{TEMPORARY}*'):
                runner.logger.info(f'Removing {leftover}, left unfinished by a killed run')
                leftover.unlink()

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Refuse to save weights that are not finite."""
        for name, weight in checkpoint['state_dict'].items():
            if torch.is_tensor(weight) and not torch.isfinite(weight).all():
                raise FloatingPointError(
                    f'{name} is not finite at iteration {runner.iter + 1}: nothing was saved, the '
                    f'last good checkpoint is {self._last_saved(runner)}')

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        # mmengine removes the outdated checkpoint before it writes the new one.
        runner.call_hook('before_checkpoint')
        outdated = []
        if self.max_keep_ckpts > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated.append(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

        filename = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir, filename, self.file_client_args, save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler, meta=meta, by_epoch=self.by_epoch,
            backend_args=self.backend_args, **self.args)
        if not is_main_process():
            return
        AtomicLocalBackend().put_text(self.last_ckpt, Path(runner.work_dir) / 'last_checkpoint')
        for old in outdated:
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)

    @staticmethod
    def _last_saved(runner) -> str:
        record = Path(runner.work_dir) / 'last_checkpoint'
        return record.read_text() if record.is_file() else 'none'
