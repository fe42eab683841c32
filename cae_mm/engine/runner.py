"""The runner of a training: one log, and a model that may be shared out."""
import logging
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.runner import Runner
from mmpretrain.registry import RUNNERS
from torch import nn

from cae_mm.engine.log import complain, write_config
from cae_mm.engine.sharding import ShardedModel, layouts, share_out_states, whole_states
from cae_mm.engine.signals import SignalHook
from cae_mm.parts import read_like


@RUNNERS.register_module()
class TrainingRunner(Runner):
    """A Runner whose log goes on in ``cfg.log_name``, see :func:`cae_mm.engine.work_dir.enter`."""

    def setup_env(self, env_cfg: dict) -> None:
        """Name the log before it is opened."""
        super().setup_env(env_cfg)
        self._timestamp = self.cfg.get('log_name', self._timestamp)

    def build_logger(self, *args, **kwargs) -> logging.Logger:
        """Build the logger; what it cannot write is an error in one line."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            handler.handleError = partial(complain, getattr(handler, 'baseFilename', 'log'))
        return logger

    def train(self) -> nn.Module:
        """Train; after an error, which a notebook outlives, signals are what they were before."""
        try:
            return super().train()
        except Exception:
            for hook in self.hooks:
                if isinstance(hook, SignalHook):
                    hook.give_back()
            raise

    def dump_config(self) -> None:
        """Write the config whole."""
        if is_main_process():
            name = Path(self.cfg.filename or f'{self.timestamp}.py').name
            write_config(self.cfg, Path(self.work_dir, name))

    def _init_model_weights(self) -> None:
        if not isinstance(self.model, ShardedModel):  # which has done so
            super()._init_model_weights()

    def save_checkpoint(self, *args, in_parts: bool = False, **kwargs) -> None:
        """Save; of a sharded model all processes bring their parts, or hand them to their own hooks."""
        if not isinstance(self.model, ShardedModel):
            return super().save_checkpoint(*args, **kwargs)
        model, optimizer = self.model.module, self.optim_wrapper.optimizer
        with nullcontext() if in_parts else whole_states(model, optimizer):
            if is_main_process():
                return super().save_checkpoint(*args, **kwargs)
            checkpoint = dict(meta={}, state_dict=model.state_dict())
            if kwargs.get('save_optimizer', True):
                checkpoint['optimizer'] = self.optim_wrapper.state_dict()
            if in_parts:
                self.call_hook('before_save_checkpoint', checkpoint=checkpoint)

    def resume(self, filename: str, *args, **kwargs) -> None:
        """Resume; of a sharded model each process takes its part of what is in the file."""
        if not isinstance(self.model, ShardedModel):
            return super().resume(filename, *args, **kwargs)
        optimizer = self.optim_wrapper.optimizer
        optimizer.register_load_state_dict_pre_hook(share_out_states)
        kwargs['map_location'] = None  # The whole may be more than a GPU has room for.
        with read_like(layouts(self.model.module, optimizer)):
            super().resume(filename, *args, **kwargs)
