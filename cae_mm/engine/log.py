"""One log for a run, however often it was interrupted, that a full disk does not end."""
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import mmengine
from mmengine.config import Config
from mmengine.visualization import LocalVisBackend, MLflowVisBackend
from mmpretrain.registry import VISBACKENDS
from numpy import ndarray

from cae_mm.atomic import write_atomically

# By the packages that they need.
BACKENDS = dict(
    tensorboard='TensorboardVisBackend', wandb='WandbVisBackend', mlflow='mmpretrain.MLflowBackend')


def log_to(cfg: Config, packages: Iterable[str]) -> None:
    """Let a run send its numbers and pictures to these of ``BACKENDS`` too, each once.

    Raises:
        ImportError: naming the package that is missing.
    """
    for package in dict.fromkeys(packages):
        # A folder of this name, as wandb leaves behind, is not the package.
        if getattr(importlib.util.find_spec(package), 'origin', None) is None:
            raise ImportError(f'--log {package}: {package} is not installed: pip install {package}')
        cfg.visualizer.vis_backends.append(dict(type=BACKENDS[package]))


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


@VISBACKENDS.register_module()
class MLflowBackend(MLflowVisBackend):
    """A MLflowVisBackend for MLflow 3, which refuses folders as stores and pictures without a suffix.

    It writes to the server of ``MLFLOW_TRACKING_URI``, or else to a database in ``save_dir``.
    """

    def __init__(self, save_dir: str, **kwargs):
        folder = Path(save_dir).absolute()
        if uri := os.environ.get('MLFLOW_TRACKING_URI'):
            place = dict(tracking_uri=uri)
        else:
            # Of an experiment that is there already, as Default is, the files lie elsewhere.
            place = dict(tracking_uri=f'sqlite:///{folder / "mlflow.db"}', exp_name='cae_mm',
                         artifact_location=str(folder / 'artifacts'))
        super().__init__(save_dir, **place | kwargs)

    def add_image(self, name: str, image: ndarray, step: int = 0, **kwargs) -> None:
        """Keep a picture (H, W, 3) uint8 RGB by its name and step."""
        name = re.sub(r'[^\w./ -]', '_', name, flags=re.ASCII)
        self.experiment.log_image(image, key=name, step=step, synchronous=True)


def write_config(config: Config, path: str | Path) -> None:
    """Write the text of a config, all of it or none."""
    write_atomically(config.dump().encode(errors='surrogateescape'), path)


def complain(name: str, record: logging.LogRecord) -> None:
    """Say on the terminal that a log cannot be written."""
    with suppress(OSError):  # of a terminal that is gone
        print(f'{name}: {sys.exc_info()[1]}', file=sys.stderr)
