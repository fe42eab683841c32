"""Commands that a process runs one after another, and that end with it."""
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from cae_mm.engine.signals import SIGNALS

LIBC = ctypes.CDLL(None) if sys.platform == 'linux' else None


def run_command(command: Sequence[str], log: Path, cwd: Path, show: Callable[[str], None] = print) -> int:
    """Run a command and keep its output, line by line as it comes.

    A signal goes to the command, and ends this process when it has ended that.

    Args:
        command (Sequence[str]): program and arguments.
        log (Path): file of its output, which is written anew.
        cwd (Path): its directory.
        show (Callable): is called with each line.

    Returns:
        int: its exit code.

    Raises:
        SystemExit: with 128 + signal, after a signal.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    received = []

    def forward(number, frame):
        received.append(number)
        process.send_signal(number)

    # A group of its own: what the terminal sends comes once, from here.
    process = subprocess.Popen(
        list(command), cwd=cwd, text=True, errors='replace', stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=partial(end_with, os.getpid()))
    handlers = {number: signal.signal(number, forward) for number in SIGNALS
                if signal.getsignal(number) != signal.SIG_IGN}
    with open(log, 'w') as file:
        for line in process.stdout:
            file.write(line)
            file.flush()
            show(line)
    failed = process.wait()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    if received:
        print(f'\n{signal.Signals(received[0]).name}: ended. The same command goes on from here.')
        sys.exit(128 + received[0])
    return failed


def show_progress(line: str) -> None:
    """Of the output of a command, print where a training is."""
    if 'INFO - Epoch(' in line or 'INFO - Iter(' in line:
        print('   ' + line.split('INFO - ')[-1].split('grad_norm')[0].strip(), flush=True)


def end_with(parent: int) -> None:
    """In a new process: let the kernel send it SIGTERM when its parent is gone, however that ended."""
    if LIBC:
        LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
