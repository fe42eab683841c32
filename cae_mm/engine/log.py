"""One log for a run, however often it was interrupted, that a full disk does not end."""
import logging
import sys
from contextlib import suppress
from pathlib import Path

import mmengine
from mmengine.config import Config
from mmengine.visualization import LocalVisBackend
from mmpretrain.registry import VISBACKENDS

from cae_mm.atomic import write_atomically


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


def complain(name: str, record: logging.LogRecord) -> None:
    """Say on the terminal that a log cannot be written."""
    with suppress(OSError):  # of a terminal that is gone
        print(f'{name}: {sys.exc_info()[1]}', file=sys.stderr)
