"""A case runs in a child that is forked from a warm parent, watched, and ended with all that it started."""
import atexit
import ctypes
import faulthandler
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

# The promise: no hang, no process over 2 GB for a small file. Beyond DATA an allocation fails, so that the
# machine survives.
SECONDS, PEAK, DATA = 20, 2 * 2**30, 8 * 2**30
# What no file may make a process do. Of events with a path, that it lies in the child's folder is fine.
COMMANDS = ('os.system', 'os.exec', 'os.posix_spawn', 'os.spawn', 'os.fork', 'os.forkpty', 'pty.spawn',
            'subprocess.Popen', 'socket.connect', 'socket.bind', 'socket.getaddrinfo', 'pickle.find_class',
            'code.__new__', 'webbrowser.open', 'ctypes.dlsym/handle')
CHANGES = ('os.rename', 'os.remove', 'os.rmdir', 'os.mkdir', 'os.chmod', 'os.truncate', 'os.symlink',
           'os.link', 'shutil.rmtree', 'shutil.move')
# mmengine's own, when it writes down where it runs.
HARMLESS = (['git', 'rev-parse', 'HEAD'], ['/bin/sh', '-c', 'gcc --version'])
WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_broken = -1  # where a watched child writes what it did


def touch(*args, **kwargs) -> str:
    """What hostile files call: it leaves a trace."""
    if _broken >= 0:
        os.write(_broken, b'called the canary\n')
    return 'touched'


@dataclass
class Ended:
    """What became of a child: its exit code (minus the signal that ended it), output, and peak in bytes."""
    code: int
    out: str
    err: str
    seconds: float
    peak: int
    value: object = None
    broke: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    timed_out: bool = False

    def harm(self) -> list[str]:
        """What no case may do, whatever else is expected of it."""
        return ([f'ran code: {line}' for line in self.broke[:3]]
                + [f'left running: {name}' for name in self.orphans]
                + [f'hung: ended after {self.seconds:.0f} s: {self.err[-2000:]}'] * self.timed_out
                + [f'took {self.peak / 2**30:.1f} GB'] * (self.peak > PEAK))

    def complaint(self) -> str:
        """What stands at the terminal at the end, without bars of progress."""
        return '\n'.join(line for line in self.err.splitlines() if '%|' not in line).strip()


class Child:
    """A forked process in a session of its own, which runs a function in a folder.

    Args:
        function (Callable): its result, as JSON, is the ``value``; its exceptions end the child as they end
            a script.
        folder (Path): where it runs, and writes.
        watched (bool): record what no file may make it do.
        environment (dict): added to the environment.
        limit (Callable, optional): called first, for limits of the case.
    """

    living: ClassVar[set[int]] = set()

    def __init__(self, function: Callable, folder: Path, watched: bool = True, environment: dict = (),
                 limit: Callable = lambda: None):
        become_reaper()
        self.files = [tempfile.TemporaryFile() for _ in range(4)]
        sys.stdout.flush()
        sys.stderr.flush()
        # None is lost: this process may ignore what the child does not.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGHUP])
        self.start, self.pid = time.monotonic(), os.fork()
        if self.pid == 0:
            self._run(function, folder, watched, environment, limit, mask)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self.living.add(self.pid)
        with suppress(PermissionError, ProcessLookupError):  # both sides, whoever is first
            os.setpgid(self.pid, self.pid)

    def _run(self, function, folder, watched, environment, limit, mask):
        code = 70
        try:
            with suppress(PermissionError):
                os.setsid()
            os.chdir(folder)
            os.environ.update(environment)
            signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job ignores
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            tempfile.tempdir = tempfile.mkdtemp('', '.tmp-', folder)
            os.environ['XDG_CACHE_HOME'] = tempfile.tempdir
            sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
            for number, file in enumerate(self.files[:2], 1):
                os.dup2(file.fileno(), number)
            resource.setrlimit(resource.RLIMIT_DATA, (DATA, DATA))
            atexit._clear()
            faulthandler.register(signal.SIGUSR1)  # tells where it hangs
            limit()
            if watched:
                watch(Path(folder).resolve(), self.files[3].fileno())
            code = as_script(function, self.files[2])
        except KeyboardInterrupt:  # before or after the function
            code = 128 + signal.SIGINT
        finally:
            os._exit(code)

    def signal(self, number: int) -> None:
        """Send a signal to the process alone, if it still runs."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, seconds: float = SECONDS, grace: float | None = 0) -> Ended:
        """Wait for the end, or end it; what it started is ended ``grace`` seconds later, None: never."""
        pidfd = os.pidfd_open(self.pid)
        timed_out = not select.select([pidfd], [], [], max(0, self.start + seconds - time.monotonic()))[0]
        os.close(pidfd)
        if timed_out:
            self.signal(signal.SIGUSR1)
            time.sleep(0.5)
            self.signal(signal.SIGKILL)
        _, status, usage = os.wait4(self.pid, 0)
        self.living.remove(self.pid)
        elapsed = time.monotonic() - self.start
        orphans = [] if grace is None else end_descendants(grace)
        out, err, value, broke = (self._content(file) for file in self.files)
        return Ended(os.waitstatus_to_exitcode(status), out, err, elapsed, usage.ru_maxrss * 1024,
                     json.loads(value or 'null'), broke.splitlines(), orphans * (not timed_out), timed_out)

    @staticmethod
    def _content(file):
        with file:
            file.seek(0)
            return file.read().decode(errors='replace')


def run(function: Callable, folder: Path, seconds: float = SECONDS, **options) -> Ended:
    """Run a function in a child to its end."""
    return Child(function, folder, **options).wait(seconds)


def as_script(function: Callable, result) -> int:
    """Call a function, write its result, and return the exit code that Python would end with."""
    code = 0
    try:
        value = function()
        result.write(json.dumps(value).encode())
        result.flush()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = -signal.SIGINT
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return code


def watch(folder: Path, report: int) -> None:
    """From now on, write to ``report`` what this process does that no file may make it do."""
    global _broken
    _broken, inside = report, (f'{folder}/', '/dev/null', '/dev/tty')
    strange = set(NEVER_IMPORTED)

    def outside(path):
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        path = os.path.abspath(os.fsdecode(path))
        return path != str(folder) and not path.startswith(inside)

    def hook(event, args):
        if event == 'open':
            bad = isinstance(args[2], int) and args[2] & WRITE and outside(args[0])
        elif event == 'import':
            bad = args[0] in strange
        else:
            harmless = event == 'subprocess.Popen' and args[1] in HARMLESS
            bad = event in COMMANDS and not harmless or event in CHANGES and outside(args[0])
        if bad:
            os.write(report, f'{event} {args!r:.200}\n'.encode(errors='replace'))

    sys.addaudithook(hook)


# Modules that hostile files name and nothing else imports.
NEVER_IMPORTED = ('antigravity', 'this', 'turtledemo', 'idlelib.idle', 'chaos_decoy')


def become_reaper() -> None:
    """Children of children that end come to this process, so that none is overlooked (Linux)."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def end_descendants(grace: float) -> list[str]:
    """End what was left behind, children that live and their children; name what does not end by itself."""
    deadline = time.monotonic() + grace
    while (left := descendants()) and time.monotonic() < deadline:
        time.sleep(0.05)
    named = [f'{pid} {name}' for pid, name in left.items()]
    while left:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
        left = descendants()
    return named


def descendants() -> dict[int, str]:
    """Processes that a child left behind to this one; those that have ended are taken off the list."""
    found = {}
    for entry in os.listdir('/proc'):
        with suppress(OSError, ValueError):
            name, rest = Path('/proc', entry, 'stat').read_text().rsplit(')', 1)
            state, parent, *_ = rest.split()
            if int(parent) != os.getpid() or int(entry) in Child.living:
                continue
            if state == 'Z':
                os.waitpid(int(entry), os.WNOHANG)
            else:
                found[int(entry)] = name.split('(', 1)[1]
    return found
