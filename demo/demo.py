#!/usr/bin/env python
"""The whole method in minutes: train a tokenizer, pre-train CAE, and show what the encoder learned.

    python demo/demo.py                       on handwritten digits over photographs
    python demo/demo.py --data MY_IMAGES      on your own images

Every step is a command that is printed before it runs; a step whose result exists is not repeated.
"""
import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cae_mm.visualization import Section, draw_curves, write_report

ROOT = Path(__file__).resolve().parents[1]
TOKENIZER = 'configs/tokenizer/dvae_demo.py'
PRETRAIN = 'configs/pretrain/cae_vitt_demo.py'
# Images that each training sees; with fewer different ones there are more epochs.
TOKENIZER_VIEWS, PRETRAIN_VIEWS = 40_000, 80_000

LEAD = """A vision transformer saw unlabelled images with half of their patches hidden, and
learned to predict what the hidden patches are. This page shows what that taught it."""
LEARNED = """Frozen features (the mean of the patch tokens) classify {val} images that were in
no training: by their most similar ones among {train} training images (k-NN), and by a linear
classifier. Pre-training itself saw no labels. The random encoder is the same network before
it."""
PAINTED = """Half of the patches are hidden. From the others the model predicts the codes of the
hidden ones, and the tokenizer's decoder turns codes into pixels. The last column decodes the
true codes: no prediction can look better. The images were in no training, unless the data has
no validation part."""
PRETRAINED = """Two losses fall: the predicted codes approach the true ones (reconstruction),
and the predicted representations approach those that the encoder gives the hidden patches
(alignment)."""
TOKENIZED = """A discrete VAE learns to describe each patch by one code. Codes that are never
used would be wasted; the perplexity is the number of codes in effective use."""


@dataclass
class Step:
    """A command and the file that it leaves behind."""
    title: str
    command: list
    result: Path
    seconds: float | None = None  # None when the result was there already

    def shell(self) -> str:
        """The command as one would type it in the repository's root."""
        return shlex.join(['python', *map(str, self.command)])

    def run(self, logs: Path, force: bool) -> None:
        """Run the command, show its progress, and keep its output in ``logs``.

        Raises:
            SystemExit: with the end of the output when the command fails.
        """
        print(f'\n== {self.title}\n   {self.shell()}', flush=True)
        if self.result.exists() and not force:
            print(f'   already done: {self.result}')
            return
        logs.mkdir(parents=True, exist_ok=True)
        log, start, lines = logs / f'{self.result.parent.name}_{self.result.stem}.log', time.time(), []
        command = [str(part) for part in self.command if not (force and part == '--resume')]
        process = subprocess.Popen(
            [sys.executable, '-W', 'ignore', *command], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        with open(log, 'w') as file:
            for line in process.stdout:
                lines.append(line)
                file.write(line)
                if 'INFO - Epoch(' in line or 'INFO - Iter(' in line:
                    print('   ' + line.split('INFO - ')[-1].split('grad_norm')[0].strip(),
                          flush=True)
        if process.wait() or not self.result.exists():
            sys.exit(f'{"".join(lines[-25:])}\n{self.title} failed; all of its output is in {log}')
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
                       code='\n'.join(commands))


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
        'tools/train.py', config, '--work-dir', work_dir, '--data-root', data / 'train', '--resume',
        '--cfg-options', f'train_dataloader.batch_size={batch_size}',
        f'train_cfg.max_epochs={epochs}', f'param_scheduler.warmup_epochs={epochs / 12:.3g}',
        f'default_hooks.checkpoint.interval={max(1, epochs // 8)}', *options],
        work_dir / f'epoch_{epochs}.pth')


def data_step(source: Path | None, data: Path) -> Step:
    """Write the embedded images, or small copies of ``source``.

    Raises:
        SystemExit: when ``data`` was made from another source.
    """
    record = data.parent / 'source.txt'
    if record.is_file() and record.read_text() != str(source):
        sys.exit(f'{data} was made from {record.read_text()}, not {source}: choose another --out')
    data.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(str(source))
    done = data.parent / 'done.txt'
    if source is None:
        return Step('Make the demo data', ['demo/make_demo_data.py', data.parent, '--done', done],
                    done)
    return Step('Copy your images, small',
                ['tools/prepare_images.py', source, data, '--done', done], done)


def pretrain(steps: Steps, source: Path | None, views: Sequence[int]) -> tuple[Path, Path]:
    """Make the data and train on it; return the checkpoints of the tokenizer and of CAE."""
    data = steps.out / 'data' / 'imagenet'
    steps.run(data_step(source, data))
    tokenizer = steps.run(train_step('Train the tokenizer', TOKENIZER, steps.out / 'tokenizer', data,
                                     views[0], 64))
    return tokenizer, steps.run(train_step('Pre-train CAE', PRETRAIN, steps.out / 'pretrain', data,
                                           views[1], 32, (f'tokenizer={tokenizer}',)))


def result_table(results: dict[str, dict[str, float]]) -> list[list[str]]:
    """Accuracies of the random and the pre-trained encoder, and how much the second is ahead."""
    names = {f'knn/top1_k{k}': f'k-NN, k = {k}' for k in (1, 10, 20)} | {
        'linear/top1': 'linear probe'}
    names = {key: name for key, name in names.items() if key in results['random']}
    rows = [[f'{encoder} encoder', *(f'{numbers[key]:.1f}' for key in names)]
            for encoder, numbers in results.items()]
    ahead = [results['pre-trained'][key] - results['random'][key] for key in names]
    return [['top-1 accuracy, %', *names.values()], *rows,
            ['difference', *(f'{number:+.1f}' for number in ahead)]]


def evaluate_steps(data: Path, out: Path, checkpoint: Path) -> dict[str, Step]:
    """k-NN and linear probe of the random and the pre-trained encoder; {} without labels."""
    if not (data / 'val').is_dir():
        return {}
    ks = [k for k in (10, 20) if k <= count(data / 'train')] or [1]
    return {name: Step(
        f'Measure the {name} encoder',
        ['tools/knn.py', PRETRAIN, path, '--data', data, '--linear-probe', '--k', *ks, '--out',
         out / f'{name}.json'], out / f'{name}.json')
        for name, path in (('random', 'none'), ('pre-trained', checkpoint))}


def report(steps: Steps, table: list[list[str]], data: Path) -> None:
    """Write ``report.html``."""
    out = steps.out
    sections = [Section('What the encoder learned', LEARNED.format(
        train=count(data / 'train'), val=count(data / 'val')), table)] if table else []
    sections += [
        Section('What it paints under the mask', PAINTED, figure=out / 'reconstructions.png'),
        Section('How pre-training went', PRETRAINED, figure=out / 'pretrain_curves.png'),
        Section('How the tokenizer was trained', TOKENIZED, figure=out / 'tokenizer_curves.png'),
        steps.section()]
    write_report(out / 'report.html', 'CAE: a context autoencoder, pre-trained in minutes', LEAD,
                 sections)


def print_table(table: list[list[str]]) -> None:
    """Print a table of the report."""
    for name, *cells in table:
        print(f'{name:<22}' + ''.join(f'{cell:>16}' for cell in cells))


def main() -> None:
    """Run all steps."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--data', type=Path, help='folder of your own images, at any depth; with '
                        'folders of classes, or train/CLASS and val/CLASS, k-NN is measured')
    parser.add_argument('--out', type=Path, help='folder to write, default: demo_out, or '
                        'demo_out/<name of your folder>')
    parser.add_argument('--force', action='store_true', help='repeat what is done already')
    parser.add_argument('--views', type=int, nargs=2, default=(TOKENIZER_VIEWS, PRETRAIN_VIEWS),
                        metavar=('TOKENIZER', 'CAE'), help='images that the trainings see')
    args = parser.parse_args()
    source = args.data and args.data.expanduser().resolve()
    steps = Steps((args.out or Path('demo_out', source.name if source else '')).resolve(), args.force)
    out, data = steps.out, steps.out / 'data' / 'imagenet'
    tokenizer, checkpoint = pretrain(steps, source, args.views)
    measured = evaluate_steps(data, out, checkpoint)
    table = result_table({name: json.loads(steps.run(step).read_text())
                          for name, step in measured.items()}) if measured else []
    images = data / ('val' if measured else 'train')
    steps.run(Step('Draw reconstructions', [
        'tools/reconstruct.py', PRETRAIN, checkpoint, '--images', images, '--out',
        out / 'reconstructions.png', '--cfg-options', f'tokenizer={tokenizer}'],
        out / 'reconstructions.png'))
    draw_curves(out / 'tokenizer', out / 'tokenizer_curves.png',
                ('loss_reconstruct', 'code_usage', 'code_perplexity', 'lr'))
    draw_curves(out / 'pretrain', out / 'pretrain_curves.png')
    report(steps, table, data)
    print()
    print_table(table)
    print(f'\n{steps.seconds():.0f} s of computing. Open {out / "report.html"}')


if __name__ == '__main__':
    main()
