"""One log for a run, however often it was interrupted, that a full disk does not end."""
import logging
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import mmengine
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend
from mmpretrain.registry import RUNNERS, VISBACKENDS
from torch import nn

from cae_mm.atomic import write_atomically
from cae_mm.engine.signals import SignalHook


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
            handler.handleError = partial(_complain, getattr(handler, 'baseFilename', 'log'))
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


@VISBACKENDS.register_module()
class LogBackend(LocalVisBackend):
    """A LocalVisBackend that writes whole lines, and without room for one says so and goes on."""

    def add_config(self, config: Config, **kwargs) -> None:
        """Write the config whole."""
        write_config(config, self.experiment._config_save_file)

    def _dump(self, value_dict: dict, file_path: str, file_format: str) -> None:
        line = (mmengine.dump(value_dict, file_format=file_format) + '\n').encode()
        try:
            with open(file_path, 'ab', buffering=0) as file:
                size = file.tell()
                if file.write(line) != len(line):
                    file.truncate(size)
                    raise OSError('no room')
        except OSError as error:
            mmengine.print_log(f'{file_path} lacks the line of step {value_dict.get("step")}: {error}',
                               'current', logging.WARNING)


def write_config(config: Config, path: str | Path) -> None:
    """Write the text of a config, all of it or none."""
    write_atomically(config.dump().encode(errors='surrogateescape'), path)


def _complain(name: str, record: logging.LogRecord) -> None:
    with suppress(OSError):  # of a terminal that is gone
        print(f'{name}: {sys.exc_info()[1]}', file=sys.stderr)
