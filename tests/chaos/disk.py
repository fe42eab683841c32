"""Disks that fill, refuse or fail: one line that says so, nothing partial, nothing older lost."""
import builtins
import ctypes
import errno
import io
import os
import resource
from pathlib import Path

from PIL import Image

from cae_mm.checkpoint.files import read_checkpoint

from . import toys
from .children import run
from .kills import Run, damaged, equal, newest, trained
from .report import Case

# What writes: a training, which goes on afterwards, and tools, by their arguments.
TOOLS = {
    'convert': 'convert.py {k} out/new.pth', 'convert safetensors': 'convert.py {k} out/new.safetensors',
    'knn': 'knn.py {c} {k} --data {d} --k 1 --out out/knn.json --features out/features',
    'visualize': 'visualize.py {c} {k} --images {d}/val --num 2 --out out/new.png',
    'reconstruct': 'reconstruct.py {c} {k} --images {d}/val --num 2 --out out/new.png',
    'prepare_images': 'demo/prepare_images.py {d}/train out'}
FAILURES = {
    'full': lambda folder, size, call: fill(size),
    'file too large': lambda folder, size, call: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    'no sync': lambda folder, size, call: fail('fsync', call),
    'no rename': lambda folder, size, call: fail('replace', call),
    'read-only': lambda folder, size, call: refuse(folder)}


def prepare(base: Path) -> dict:
    """An uninterrupted run, and its checkpoint."""
    training, work = Run(base, 'epochs'), base / 'disk-reference'
    [ended] = training.wait(training.start(work))
    assert ended.code == 0, ended.err
    return dict(end=trained(newest(work)), checkpoint=newest(work))


def run_case(case: Case, base: Path, reference: dict) -> None:
    """Let a disk fail under a training or a tool."""
    rng = case.rng
    task = 'training' if rng.random() < 0.5 else str(rng.choice(list(TOOLS)))
    failure = str(rng.choice(list(FAILURES)))
    case.kind = f'{task}: {failure}'
    training, work = Run(base, 'epochs'), case.folder / ('work' if task == 'training' else 'out')
    work.mkdir()
    (work / 'mine.txt').write_text('not to be touched')
    size, call, older = int(rng.integers(1, 30000)), int(rng.integers(1, 6)), False
    command = TOOLS.get(task, 'train.py {c} --work-dir work --resume').format(
        c=base / 'pixels.py', k=reference['checkpoint'], d=base / 'data').split()
    if task == 'training':
        size = int(rng.uniform(0.02, 2.5) * reference['checkpoint'].stat().st_size)
        if rng.random() < 0.5:  # there is something older to lose
            training.wait(training.start(work, stop_at_second_checkpoint))
            older = True
    before = {path.name for path in work.rglob('*.partial-*')}  # of the killed one
    ended = run(lambda: toys.tool(*command), case.folder, 30, watched=False,
                limit=lambda: FAILURES[failure](work, size, call))
    work.chmod(0o755)
    case.harm(ended)
    case.count('failed' if ended.code else 'finished all the same')
    if ended.code:
        err = ended.complaint()
        wrong = [problem for problem, holds in {
            f'exit code {ended.code}': ended.code not in (1, 2), 'more than one line': '\n' in err,
            'not cae_mm: ...': not err.startswith('cae_mm: '),
            'names no file': '/' not in err}.items() if holds]
        case.check(not wrong, f'{", ".join(wrong)}: {err[-300:]!r}')
    case.check((work / 'mine.txt').read_text() == 'not to be touched', 'lost a file of others')
    left = {path.name for path in work.rglob('*.partial-*')} - before
    case.check(not left, f'left {left}')
    for path in work.glob('new.*'):
        case.check(whole(path), f'left {path.name}, which is not whole')
    if task == 'training':
        case.check(not (problem := damaged(work)), f'{problem}')
        case.check(not older or newest(work) is not None, 'lost all older checkpoints')
        [again] = training.wait(training.start(work))
        case.check(again.code == 0, f'--resume on a sound disk ended with {again.code}: {again.err[-300:]}')
        case.check(again.code != 0 or equal(trained(newest(work)), reference['end']), 'other numbers')


def whole(path: Path) -> bool:
    """Whether a picture or a checkpoint can be read."""
    try:
        return bool(Image.open(path).tobytes() if path.suffix == '.png' else read_checkpoint(path))
    except Exception:
        return False


def stop_at_second_checkpoint() -> None:
    """End the process there."""
    replace, names = os.replace, []

    def counted(source, target, **options):
        names.extend([target] * str(target).endswith('.pth'))
        if len(names) > 1:
            os._exit(9)
        replace(source, target, **options)

    os.replace = counted


def fill(left: int) -> None:
    """A disk with room for so many bytes: what Python's own files write beyond fails."""

    class Limited(io.FileIO):
        def write(self, data):
            nonlocal left
            data = memoryview(data).cast('B')
            room, left = left, max(0, left - len(data))
            if len(data) <= room:
                return super().write(data)
            super().write(data[:room])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    original = builtins.open

    def limited(file, mode='r', buffering=-1, encoding=None, errors=None, newline=None, *more, **options):
        reads = not set(mode) & set('wax+')
        if reads or not isinstance(file, (str, os.PathLike)) or str(file)[:5] == '/dev/':
            return original(file, mode, buffering, encoding, errors, newline, *more, **options)
        stream = io.BufferedWriter(Limited(file, mode.replace('b', '').replace('t', '')))
        return stream if 'b' in mode else io.TextIOWrapper(stream, encoding, errors, newline, True)

    builtins.open = io.open = limited


def fail(name: str, number: int) -> None:
    """The number-th call of a function of ``os`` fails, and those after it."""
    original, left = getattr(os, name), number

    def failing(*args, **kwargs):
        nonlocal left
        left -= 1
        if left <= 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO), *map(str, args[:1]))
        return original(*args, **kwargs)

    setattr(os, name, failing)


def refuse(folder: Path) -> None:
    """A folder in which this process may not write: root neither, without its capabilities (Linux)."""
    folder.chmod(0o555)
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None).capset(header, none)
