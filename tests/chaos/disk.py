"""Disks that fill, refuse or fail: one line that says so, nothing partial, nothing older lost."""
import builtins
import ctypes
import errno
import io
import os
import resource
import shutil
from pathlib import Path

from cae_mm.checkpoint.files import read_checkpoint

from . import toys
from .children import run
from .kills import Run, equal, newest, trained
from .report import Case

# What writes: a training, which is resumed afterwards, and tools, by their arguments behind config and checkpoint.
TOOLS = {
    'convert': ('convert.py', '{k} out/new.pth'), 'convert safetensors': ('convert.py', '{k} out/new.safetensors'),
    'knn': ('knn.py', '{c} {k} --data {d} --k 1 --out out/knn.json --features out/features'),
    'visualize': ('visualize.py', '{c} {k} --images {d}/val --num 2 --out out/new.png'),
    'reconstruct': ('reconstruct.py', '{c} {k} --images {d}/val --num 2 --out out/new.png'),
    'prepare_images': ('demo/prepare_images.py', '{d}/train out')}


def prepare(base: Path) -> dict:
    """An uninterrupted run, and its checkpoint."""
    work = base / 'disk-reference'
    [ended] = Run(base, 'epochs').wait(Run(base, 'epochs').start(work))
    assert ended.code == 0, ended.err
    return dict(end=trained(newest(work)), checkpoint=newest(work), size=newest(work).stat().st_size)


def run_case(case: Case, base: Path, reference: dict) -> None:
    """Let a disk fail under a training or a tool."""
    rng = case.rng
    task = 'training' if rng.random() < 0.5 else str(rng.choice(list(TOOLS)))
    failure = str(rng.choice(['full', 'file too large', 'no sync', 'no rename', 'read-only']))
    case.kind = f'{task}, {failure}'
    case.count(failure)
    work = case.folder / ('work' if task == 'training' else 'out')
    work.mkdir()
    (work / 'mine.txt').write_text('not to be touched')
    call = int(rng.integers(1, 6))
    size = int(rng.uniform(0.02, 2.5) * reference['size']) if task == 'training' else int(rng.integers(1, 30000))
    limit = dict(zip(('full', 'file too large', 'no sync', 'no rename', 'read-only'), (
        lambda: fill(size), lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        lambda: fail('fsync', call), lambda: fail('replace', call), lambda: refuse(work)), strict=True))[failure]
    if task == 'training':
        if rng.random() < 0.5:  # there is something older to lose
            Run(base, 'epochs').wait(Run(base, 'epochs').start(work, lambda: stop_after(base)))
        older = {path.name: path.read_bytes() for path in work.glob('*.pth')}
        command = ['train.py', base / 'pixels.py', '--work-dir', 'work', '--resume']
    else:
        tool, text = TOOLS[task]
        command = [tool, *text.format(c=base / 'pixels.py', k=reference['checkpoint'], d=base / 'data').split()]
        older = {}
    ended = run(lambda: toys.tool(*command), case.folder, 30, watched=False, limit=limit)
    work.chmod(0o755)
    case.harm(ended)
    err = ended.err.strip()
    if ended.code:
        case.count('failed')
        wrong = [problem for problem, holds in {
            f'exit code {ended.code}': ended.code not in (1, 2), 'more than one line': '\n' in err,
            'not cae_mm: ...': not err.startswith('cae_mm: '), f'does not name {work.name}/': f'{work.name}/' not in err and '.tmp-' not in err}.items() if holds]
        case.check(not wrong, f'{", ".join(wrong)}: {err[-300:]!r}')
    else:
        case.count('finished')
    case.check((work / 'mine.txt').read_text() == 'not to be touched', 'lost a file of others')
    partial = [path.name for path in work.rglob('*.partial-*')]
    case.check(not partial, f'left {partial}')
    if ended.code and task != 'training':
        left = [path.name for path in work.iterdir() if path.name.startswith('new')]
        case.check(not left, f'left {left}')
    if task == 'training':
        whole = []
        for path in work.glob('*.pth'):
            try:
                whole.append(read_checkpoint(path))
            except Exception as error:
                case.check(False, f'{path.name} is not whole: {error}')
        case.check(bool(whole) or not older, 'lost all older checkpoints')
        [again] = Run(base, 'epochs').wait(Run(base, 'epochs').start(work))
        case.check(again.code == 0, f'--resume on a sound disk ended with {again.code}: {again.err[-300:]}')
        if again.code == 0:
            case.check(equal(trained(newest(work)), reference['end']), 'other numbers than the uninterrupted run')
    shutil.rmtree(work)


def stop_after(base: Path) -> None:
    """End the process when its second checkpoint gets its name."""
    replace, left = os.replace, 4

    def counted(source, target, **options):
        nonlocal left
        left -= str(target).endswith('.pth') * 2
        if left <= 0:
            os._exit(9)
        replace(source, target, **options)

    os.replace = counted


def fill(left: int) -> None:
    """A disk with room for so many bytes: writes beyond fail, as those of Python's own files do."""

    class Limited(io.FileIO):
        def write(self, data):
            nonlocal left
            size = memoryview(data).nbytes
            if size > left:
                part, left = memoryview(data).cast('B')[:left], 0
                super().write(part)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left -= size
            return super().write(data)

    original = builtins.open

    def limited(file, mode='r', buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
        if not set(mode) & set('wax+') or not isinstance(file, (str, os.PathLike)) or str(file).startswith('/dev/'):
            return original(file, mode, buffering, encoding, errors, newline, closefd, opener)
        stream = io.BufferedWriter(Limited(file, mode.replace('b', '').replace('t', ''), opener=opener))
        return stream if 'b' in mode else io.TextIOWrapper(stream, encoding, errors, newline, line_buffering=True)

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
