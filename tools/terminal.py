"""How a tool meets the person who calls it: a line for what is wrong, and an exit code; without PyTorch.

0: done. 2: wrong input, that is options, configs, files or data. 1: a failure on the way. 128 + signal:
ended by that signal. The traceback is in the log of the run if it has one, on the terminal with --debug.
"""
import argparse
import errno
import json
import linecache
import math
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

OURS = 'cae_mm', '__main__', 'options', 'terminal', 'steps', 'prepare_images'
DEBUG = 'CAE_MM_DEBUG'  # in the environment: the processes that a tool starts know it too
NO_INPUT = errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE  # the machine's fault
MOST = 1000  # characters of a line


class Debug(argparse.Action):
    """--debug: show tracebacks."""

    def __call__(self, parser, namespace, values, option_string=None):
        os.environ[DEBUG] = '1'


class Parser(argparse.ArgumentParser):
    """A parser with --debug, whose errors are those of ``run``."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.add_argument('--debug', action=Debug, nargs=0, default=argparse.SUPPRESS,
                          help='show the traceback of an error')

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        raise ValueError(f'{message}; --help lists the options')


def number(kind: type, least: float, most: float = math.inf) -> Callable:
    """A ``type`` of argparse: a finite int or float from ``least`` to ``most``."""
    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not (math.isfinite(value) and least <= value <= most):
            bounds = f'from {least} ' + ('on' if most == math.inf else f'to {most}')
            raise argparse.ArgumentTypeError(
                f'{text} is no {"whole " if kind is int else ""}number {bounds}')
        return value
    return convert


def new_file(*suffixes: str) -> Callable:
    """A ``type`` of argparse: a file that can be written, with one of these suffixes if there are any."""
    def convert(text):
        path = Path(text)
        there = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
        if path.is_dir() or not (path.exists() or there.is_dir()) or not os.access(there, os.W_OK):
            raise argparse.ArgumentTypeError(f'{text} cannot be written: name a file in a folder of yours')
        if suffixes and path.suffix not in suffixes:
            raise argparse.ArgumentTypeError(f'{text}: name a {" or ".join(suffixes)} file')
        return path
    return convert


SIGNALS = [getattr(signal, name) for name in ('SIGTERM', 'SIGINT', 'SIGHUP') if hasattr(signal, name)]
NATURAL, POSITIVE = number(int, 0), number(int, 1)


def ended_by(number: int, frame: object) -> NoReturn:
    """End this process by a signal: what is being written is removed; at a second signal, at once."""
    for other in SIGNALS:
        signal.signal(other, lambda number, frame: os._exit(128 + number))
    ended_by.number = number  # an import, say, makes an error of its own of the exit
    sys.exit(128 + number)


def run(main: Callable[[], None]) -> NoReturn:
    """Call ``main`` and end this process with the code of this file's head."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as by nohup
            signal.signal(number, ended_by)
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
        if isinstance(code, str):
            print(f'cae_mm: {code}', file=sys.stderr)
            code = 1
    except BaseException as error:
        code = 128 + ended_by.number if hasattr(ended_by, 'number') else report(error)
    try:
        sys.stdout.flush()
    except OSError:  # The terminal or the reader is gone, which would change the code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if launch := sys.modules.get('cae_mm.engine.launch'):
        launch.end_processes(code)
    sys.exit(code)


def report(error: BaseException) -> int:
    """Say in one line what is wrong; return the exit code.

    Of the processes that tools/torchrun.py started, each leaves the line to that one, which prints one.
    """
    whole = ''.join(traceback.format_exception(type(error), error, error.__traceback__))
    line = 'cae_mm: ' + describe(error)
    with suppress(OSError):
        for path in log_files():
            with open(path, 'a', encoding='utf-8', errors='backslashreplace') as log:
                log.write(whole)
            line += f' (traceback: {path})'
        if path := os.environ.get('TORCHELASTIC_ERROR_FILE'):
            details = dict(py_callstack=whole, timestamp=str(int(time.time())))
            Path(path).write_text(json.dumps(dict(message=dict(message=line, extraInfo=details))))
    if DEBUG in os.environ:
        print(whole, file=sys.stderr)
    if not os.environ.get('TORCHELASTIC_ERROR_FILE'):
        print(line.encode(errors='backslashreplace').decode(), file=sys.stderr, flush=True)
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if is_input(error) else 1


def describe(error: BaseException) -> str:
    """An error as one line; with its kind where the text alone says little."""
    text, names = str(error), (ValueError, OSError, ImportError, SyntaxError)
    if isinstance(error, KeyboardInterrupt):
        return 'interrupted'
    # PyTorch's, of a process that loads data: the traceback there ends with the error.
    if 'Original Traceback' in text:
        return ' '.join(re.split(r'\n(?=\S)', text.strip())[-1].split())
    if isinstance(error, OSError) and error.strerror:
        files = ' -> '.join(str(name) for name in (error.filename, error.filename2) if name is not None)
        text = f'{files}: {error.strerror}' if files else error.strerror
    elif isinstance(error, SyntaxError):
        text = f'{error.filename}, line {error.lineno}: {error.msg}'
    elif unknown := re.match(r"'?(\S+) is not in the (\S+)::(.*?) registry", text):
        name, scope, kind = unknown.groups()
        return f'there is no {name} among the {kind}s of {scope}: mind spelling, scope and custom_imports'
    if not (text and (isinstance(error, names) or judged(error))):
        text = f'{type(error).__name__}: {text}' if text else type(error).__name__
    text = ' '.join(text.split())
    return text if len(text) < MOST else f'{text[:MOST]} ...'


def is_input(error: BaseException) -> bool:
    """Whether what was given is wrong, not what happened: bad values, files, or what a config asks for."""
    if isinstance(error, OSError):
        return error.errno not in NO_INPUT
    if isinstance(error, (ValueError, ImportError, SyntaxError)) or judged(error):
        return True
    built = any(frame.f_code.co_filename.endswith('build_functions.py')
                for frame, _ in traceback.walk_tb(error.__traceback__))
    return built and isinstance(error, (AssertionError, AttributeError, LookupError, TypeError))


def judged(error: BaseException) -> bool:
    """Whether a statement of this project raised the error: its text is made for the reader."""
    *_, (frame, line) = [(None, 0), *traceback.walk_tb(error.__traceback__)]
    return (frame is not None and frame.f_globals.get('__name__', '').partition('.')[0] in OURS
            and linecache.getline(frame.f_code.co_filename, line).lstrip().startswith('raise'))


def log_files() -> list[str]:
    """The logs of the run, if it has begun."""
    logging = sys.modules.get('mmengine.logging')
    if logging is None or not logging.MMLogger._instance_dict:
        return []
    handlers = logging.MMLogger.get_current_instance().handlers
    return [handler.baseFilename for handler in handlers if hasattr(handler, 'baseFilename')]
