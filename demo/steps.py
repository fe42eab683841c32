"""Steps that print their command and are not repeated, and those with which both demos begin."""
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cae_mm.atomic import write_atomically
from cae_mm.engine.commands import run_command, show_progress
from cae_mm.visualization import Section
from cae_mm.visualization.report import portable

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / 'tools'))  # terminal.py, for the demos too
TOKENIZER = 'configs/tokenizer/dvae_demo.py'
PRETRAIN = 'configs/pretrain/cae_vitt_demo.py'
# Images that each training sees; with fewer different ones there are more epochs.
TOKENIZER_VIEWS, PRETRAIN_VIEWS = 40_000, 112_000


def precision() -> list[str]:
    """The option for bfloat16, on processors that compute with it: a step of CAE takes 0.6 of its time."""
    try:
        flags = Path('/proc/cpuinfo').read_text().split()
    except OSError:
        return []
    return ['--amp'] if {'avx512_bf16', 'amx_bf16'} & set(flags) else []


@dataclass
class Step:
    """A command and the file that it leaves behind."""
    title: str
    command: list
    result: Path
    keep_output: bool = False  # the command's output is the result, which is there when it has succeeded
    seconds: float | None = None  # None when the result was there already

    def shell(self) -> str:
        """The command as one would type it in the repository's root."""
        return shlex.join(['python', *map(str, self.command)])

    def run(self, logs: Path, force: bool) -> None:
        """Run the command, show its progress, and keep its output in ``logs``.

        Raises:
            ValueError, RuntimeError: for wrong input of the command, or a failure on its way.
            SystemExit: see ``run_command``.
        """
        print(f'\n== {self.title}\n   {self.shell()}', flush=True)
        if self.result.exists() and not force:
            print(f'   already done: {self.result}')
            return
        name = '_'.join(self.result.relative_to(logs.parent).with_suffix('').parts)
        log, start, lines = logs / f'{name}.log', time.time(), []
        command = [str(part) for part in self.command if not (force and part == '--resume')]

        def show(line):
            lines.append(line)
            show_progress(line)

        failed = run_command([sys.executable, '-W', 'ignore', *command], log, ROOT, show)
        if self.keep_output and not failed:
            write_atomically(''.join(lines).encode(), self.result)
        if failed or not self.result.exists():
            *before, last = ['', *lines[-25:]]
            print(''.join(before))
            raise (ValueError if failed == 2 else RuntimeError)(
                f'{self.title} failed: {last.strip().removeprefix("cae_mm: ")}; its output is in {log}')
        self.seconds = time.time() - start
        print(f'   {self.seconds:.0f} s')


@dataclass
class Steps:
    """The steps of a demo that writes to ``out``, in the order in which they ran."""
    out: Path
    force: bool = False
    done: list[Step] = field(default_factory=list)

    def run(self, step: Step) -> Path:
        """Run a step, if its result is not there; return the result."""
        self.done.append(step)
        step.run(self.out / 'logs', self.force)
        return step.result

    def seconds(self) -> float:
        """What the steps took that were not done before."""
        return sum(step.seconds or 0 for step in self.done)

    def section(self) -> Section:
        """The commands, for the report."""
        commands = [f'# {step.title}' + (f', {step.seconds:.0f} s' if step.seconds else '')
                    + f'\n{step.shell()}' for step in self.done]
        return Section('Do it again', 'In the root of the repository, with its environment active:',
                       code=portable('\n'.join(commands), self.out))


def count(folder: Path) -> int:
    """Number of images below a folder of ``data``."""
    return sum(1 for _ in folder.rglob('*.jpg'))


def train_step(title: str, config: str, work_dir: Path, data: Path, views: int, batch_size: int,
               options: tuple[str, ...] = ()) -> Step:
    """A training that sees about ``views`` images, continued where an earlier call was stopped."""
    num_images = count(data / 'train')
    batch_size = min(batch_size, num_images)
    epochs = max(1, round(views / (num_images // batch_size * batch_size)))
    return Step(title, [
        'tools/train.py', config, '--work-dir', work_dir, '--data-root', data, '--resume',
        *precision(), '--cfg-options', f'train_dataloader.batch_size={batch_size}',
        f'train_cfg.max_epochs={epochs}', f'param_scheduler.warmup_epochs={epochs / 12:.3g}',
        f'default_hooks.checkpoint.interval={max(1, epochs // 8)}', *options],
        work_dir / f'epoch_{epochs}.pth')


def data_step(source: Path | None, data: Path) -> Step:
    """Write the embedded images, or small copies of ``source``.

    Raises:
        ValueError: when ``data`` was made from another source.
    """
    record = data.parent / 'source.txt'
    if record.is_file() and (made_from := record.read_text(errors='surrogateescape')) != str(source):
        raise ValueError(f'{data} was made from {made_from}, not {source}: choose another --out')
    data.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(os.fsencode(str(source)), record)
    done = data.parent / 'done.txt'
    if source is None:
        return Step('Make the demo data', ['demo/make_demo_data.py', data.parent], done, keep_output=True)
    return Step('Copy your images, small', ['demo/prepare_images.py', source, data], done, keep_output=True)


def train_tokenizer(steps: Steps, source: Path | None, views: int) -> Path:
    """Make the data and train the tokenizer on it; return its checkpoint."""
    data = steps.out / 'data' / 'imagenet'
    steps.run(data_step(source, data))
    return steps.run(train_step('Train the tokenizer', TOKENIZER, steps.out / 'tokenizer', data, views, 64))


def pretrain(steps: Steps, source: Path | None, views: Sequence[int]) -> tuple[Path, Path]:
    """Make the data and train on it; return the checkpoints of the tokenizer and of CAE."""
    tokenizer = train_tokenizer(steps, source, views[0])
    return tokenizer, steps.run(train_step(
        'Pre-train CAE', PRETRAIN, steps.out / 'pretrain', steps.out / 'data' / 'imagenet', views[1], 32,
        (f'tokenizer={tokenizer}',)))


def change(table: list[list[str]]) -> str:
    """Each number of the report's table, from its first row to its second, in a clause."""
    return '; '.join(f'{name} from {before} to {after}'
                     for name, before, after in list(zip(*table[:3], strict=True))[1:])


def print_table(table: list[list[str]]) -> None:
    """Print a table of the report."""
    for name, *cells in table:
        print(f'{name:<22}' + ''.join(f'{cell:>16}' for cell in cells))
