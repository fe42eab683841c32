"""Trainings that are killed at random moments, whose folders suffer, and that go on to the same numbers."""
import os
import re
import select
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import torch

from cae_mm.checkpoint.files import read_checkpoint

from . import toys
from .children import CHANGES, WRITE, Child, Ended, end_descendants
from .report import Case

# Kind of run: its config, options, number of ranks, share of the cases.
KINDS = {
    'epochs': ('pixels', [], 1, 6), 'iterations': ('iters', [], 1, 3), 'validation': ('classes', [], 1, 3),
    'workers': ('pixels', ['train_dataloader.num_workers=2'], 1, 3),
    'two ranks': ('pixels', ['train_dataloader.batch_size=2'], 2, 2),
    'command': ('pixels', [], 1, 1), 'second run': ('pixels', [], 1, 1), 'demo': ('pixels', [], 1, 1)}
STEPS = 12  # of each
SOFT = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
COMPARED = ('state_dict', 'optimizer', 'param_schedulers')


def prepare(base: Path) -> dict:
    """Uninterrupted runs, and how long they take."""
    found = {}
    for kind, (config, _, ranks, _) in KINDS.items():
        if (config, ranks) not in found:
            run, work = Run(base, kind), base / f'reference-{config}-{ranks}'
            [ended, *_] = run.wait(run.start(work))
            assert ended.code == 0, ended.err
            found[config, ranks] = dict(seconds=ended.seconds, work=work, files=files_of(work),
                                        end=trained(newest(work)))
    return found


def run_case(case: Case, base: Path, references: dict) -> None:
    """Kill a run a few times, let it finish, and compare everything with the uninterrupted one."""
    rng = case.rng
    case.cut = set()  # names and sizes of files that the case itself has damaged
    shares = [share for *_, share in KINDS.values()]
    case.kind = str(rng.choice(list(KINDS), p=[share / sum(shares) for share in shares]))
    run, work = Run(base, case.kind), case.folder / 'work'
    reference = references[run.config, run.ranks]
    work.mkdir()
    if case.kind == 'demo':
        return stop_demo(case, base)
    if case.kind == 'second run':
        refuse_second(case, run, work, reference['seconds'])
    for _ in range(1 if case.kind == 'command' else rng.integers(2, 6)):
        if kill(case, run, work, reference['seconds']):
            break
        work = suffer(case, work)
    ended = run.wait(run.start(work))
    case.failures += [f'left running: {name}' for name in end_descendants(12)]
    for each in ended:
        case.check(each.code == 0, f'--resume ended with {each.code}: {each.err[-300:]}')
        case.harm(each)
    if case.failures:
        return
    case.check(equal(trained(newest(work)), reference['end']), 'other numbers than the uninterrupted run')
    # A file that the case itself has damaged stays where nothing took its place.
    spoilt = {str(path.relative_to(work)) for path in work.glob('*.pth')
              if (path.name, path.stat().st_size) in case.cut} - set(reference['files'])
    found = [name for name in files_of(work) if name not in spoilt]
    case.check(found == reference['files'], f'files: {found}')


class Run:
    """How a kind of training is started, with all of its ranks."""

    def __init__(self, base: Path, kind: str):
        self.base, self.kind = base, kind
        self.config, self.options, self.ranks, _ = KINDS[kind]
        self.seconds = 90 if kind == 'command' else 20

    def start(self, work: Path, limit=lambda: None) -> list[Child]:
        """Start or resume it in ``work``; only the first rank has the limit."""
        work.mkdir(exist_ok=True)
        command = ['train.py', self.base / f'{self.config}.py', '--work-dir', work.name, '--resume']
        command += ['--cfg-options', *self.options] if self.options else []
        environment = dict(PYTHONPATH=str(toys.ROOT))
        if self.ranks == 1:
            return [Child(lambda: self._train(command), work.parent, False, environment, limit)]
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            environment |= dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free.getsockname()[1]),
                                WORLD_SIZE='2', LOCAL_WORLD_SIZE='2')
        command[2:2] = ['--launcher', 'pytorch']
        limits = limit, lambda: None
        return [Child(lambda: self._train(command), work.parent, False,
                      {**environment, 'RANK': str(rank), 'LOCAL_RANK': str(rank)}, limits[rank])
                for rank in range(2)]

    def _train(self, command):
        if self.kind == 'command':
            os.execv(sys.executable, [sys.executable, '-W', 'ignore', str(toys.ROOT / 'tools/train.py'),
                                      *map(str, command[1:])])
        toys.tool(*command)

    def wait(self, children: list[Child]) -> list[Ended]:
        """Wait for the end of all ranks; not for workers, which look only every 5 s for who was killed."""
        return [child.wait(self.seconds, grace=None) for child in children]


def kill(case: Case, run: Run, work: Path, seconds: float) -> bool:
    """Interrupt the run at a random moment; whether it had finished before."""
    rng, before = case.rng, iterations(work)
    number = signal.SIGKILL if rng.random() < 0.5 else SOFT[rng.integers(3)]
    if run.kind != 'command' and rng.random() < 0.5:
        children = run.start(work, at_change(int(rng.integers(1, 40)), number))
        if run.ranks > 1:
            follow(children, number)
    else:
        children = run.start(work)
        time.sleep(rng.uniform(0, seconds * 1.1 if run.kind != 'command' else 12))
        for child in children:
            child.signal(number)
    twice = number != signal.SIGKILL and rng.random() < 0.15
    if twice:
        time.sleep(rng.uniform(0, 0.05))
        for child in children:
            child.signal(number)
    ended = run.wait(children)
    for each in ended:
        case.harm(each)
    codes = {each.code for each in ended}
    what = f'{signal.Signals(number).name}{" twice" * twice} gave exit code {sorted(codes)}'
    if codes == {0}:
        return True
    case.count('kills', signal.Signals(number).name)
    if number == signal.SIGKILL:
        case.check(-number in codes, f'{what}: {ended[0].err[-300:]}')
    else:
        # Ended by the signal itself: 128 + number for a shell. Of several ranks, those that wait for one
        # that ended before them say so; torchrun, which passed the signal on, ends with 128 + number.
        ranks = {1} if run.ranks > 1 and codes != {1} else set()
        case.check(codes <= {128 + number, -number} | ranks, f'{what}: {ended[0].err[-300:]}')
        if before < iterations(work) < STEPS and not twice:
            done = read_checkpoint(newest(work))['meta']['iter'] if newest(work) else 0
            case.check(done >= iterations(work), f'{what}: {iterations(work)} steps done, {done} saved')
            told = any('--resume' in each.err + each.out for each in ended)
            case.check(told, f'{what}, and no way to go on')
    case.check(not (problem := damaged(work, case.cut)), f'after {what}: {problem}')
    return False


def damaged(work: Path, known: set = frozenset()) -> str:
    """Name a checkpoint that is not whole, beside those of these names and sizes."""
    for path in sorted(work.glob('*.pth')):
        if (path.name, path.stat().st_size) not in known:
            try:
                read_checkpoint(path)
            except Exception as error:
                return f'{path.name} is not whole: {error}'
    return ''


def at_change(number: int, send: int):
    """A limit: the process signals itself before the number-th change of its files."""

    def limit():
        left = number

        def hook(event, args):
            nonlocal left
            if event in CHANGES or event == 'open' and isinstance(args[2], int) and args[2] & WRITE:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), send)

        sys.addaudithook(hook)

    return limit


def follow(children: list[Child], number: int) -> None:
    """Signal the other ranks when the first one ended or its moment has passed, as torchrun does."""
    first, *others = children
    pidfd = os.pidfd_open(first.pid)
    select.select([pidfd], [], [], 3)
    os.close(pidfd)
    for child in others if number == signal.SIGKILL else children:
        child.signal(number)


def suffer(case: Case, work: Path) -> Path:
    """Now and then something happens to the folder that --resume has to find its way in."""
    record, whole = work / 'last_checkpoint', sorted(work.glob('*.pth'), key=os.path.getmtime)
    accident = case.rng.choice(['nothing'] * 12 + ['moved', 'copied', 'empty', 'absent', 'stale', 'cut'])
    if accident == 'moved' or accident == 'copied':
        other = work.with_name(f'{work.name}x')
        work.rename(other) if accident == 'moved' else shutil.copytree(work, other)
        work = other
    elif accident == 'empty' and record.exists():
        record.write_bytes(b'')
    elif accident == 'absent':
        record.unlink(missing_ok=True)
    elif accident == 'stale' and record.exists():
        record.write_text(str(work / 'iter_1.pth'))
    elif accident == 'cut' and len(whole) > 1:
        os.truncate(whole[-1], int(case.rng.integers(0, whole[-1].stat().st_size)))
        case.cut.add((whole[-1].name, whole[-1].stat().st_size))
    else:
        return work
    case.count('accidents', accident)
    return work


def refuse_second(case: Case, run: Run, work: Path, seconds: float) -> None:
    """A second run in the folder of one that has begun is told so; the first one finishes."""
    [first] = run.start(work)
    deadline = time.monotonic() + 10
    while not iterations(work) and time.monotonic() < deadline:
        time.sleep(0.01)
    first.signal(signal.SIGSTOP)
    [second] = run.wait(run.start(work))
    first.signal(signal.SIGCONT)
    case.check(second.code in (1, 2) and str(first.pid) in second.err and len(second.err.splitlines()) == 1,
               f'a second run ended with {second.code}: {second.err[-300:]}')
    [ended] = run.wait([first])
    case.check(ended.code == 0, f'the first of two runs ended with {ended.code}: {ended.err[-300:]}')
    shutil.rmtree(work)


def stop_demo(case: Case, base: Path) -> None:
    """A demo that is stopped ends the training that it has started."""
    number = SOFT[case.rng.integers(3)]
    child = Child(lambda: toys.tool('demo/demo.py', '--data', base / 'data/train', '--out', 'out'),
                  case.folder, False, dict(PYTHONPATH=str(toys.ROOT)))
    time.sleep(case.rng.uniform(1, 15))
    child.signal(number)
    ended = child.wait(60, grace=3)
    case.count('kills', f'{signal.Signals(number).name} to demo.py')
    case.check(ended.code in (128 + number, -number), f'exit code {ended.code}: {ended.err[-300:]}')
    case.harm(ended)


def newest(work: Path) -> Path | None:
    """The checkpoint of the highest iteration."""
    return max(work.glob('*iter_*.pth'), key=lambda path: int(path.stem.split('_')[-1]), default=None)


def iterations(work: Path) -> int:
    """The last iteration that the run's records name, whatever their number."""
    text = ''.join(path.read_text() for path in work.glob('*/vis_data/scalars.json'))
    return max(map(int, re.findall(r'"loss".*"step": (\d+)}', text)), default=0)


def trained(path: Path) -> dict:
    """What a checkpoint holds of a training's state."""
    content = read_checkpoint(path)
    return {key: content[key] for key in COMPARED} | {'iter': content['meta']['iter']}


def equal(one, other) -> bool:
    """Bit for bit."""
    if torch.is_tensor(one):
        return torch.is_tensor(other) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(
            equal(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def files_of(work: Path) -> list[str]:
    """Names in a work directory, times as *: the same after any history."""
    return sorted(str(path.relative_to(work)).replace(path.relative_to(work).parts[0], '*')
                  if path.relative_to(work).parts[0][:2] == '20' else str(path.relative_to(work))
                  for path in work.rglob('*') if path.is_file())
