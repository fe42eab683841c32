#!/usr/bin/env python
"""Pre-train methods with one encoder on the same images for the same compute, and evaluate them.

    python benchmarks/evidence.py eurosat --data-root DIR --time     # alone on the machine, once
    python benchmarks/evidence.py eurosat --data-root DIR --rates    # on images held out of training
    python benchmarks/evidence.py eurosat --data-root DIR --seeds 0 1 2
    python benchmarks/evidence.py eurosat --data-root DIR --ablation --seeds 0 1 2
    python benchmarks/evidence.py --table                            # writes docs/evidence.md's tables

Each training runs in bfloat16 on one core, so two calls can share a machine of two. How many epochs a
method gets follows from the time or the operations of its step, never from the clock: other jobs change no
result.
"""
import argparse
import fcntl
import json
import os
import sys
import time
from argparse import Namespace
from dataclasses import dataclass, replace
from pathlib import Path

os.environ['OMP_NUM_THREADS'] = '1'
ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / 'tools'))
RECORDS = ROOT / 'benchmarks/evidence.json'
RATES = 1e-3, 2e-3  # the first is the configs'
HELD_OUT = 10  # one in ten images of training, by which rates are chosen
TOKENIZER, RANDOM = 'tokenizer', 'random'  # the latter is an encoder that is not trained


@dataclass(frozen=True)
class Data:
    """Images, and how long each method trains on them: minutes of one core alone."""
    tokenizer: str
    tokenizer_epochs: int
    minutes: float
    labels: bool = True


@dataclass(frozen=True)
class Method:
    """A config, where {data} is the name of the images, and what differs from it."""
    config: str
    options: tuple[str, ...] = ()
    teacher: str | None = None  # whose training counts: that of the tokenizer, or of a method


DATA = dict(
    eurosat=Data('tokenizer/dvae_eurosat', 6, 12),
    flowers=Data('tokenizer/dvae_eurosat', 20, 12),
    camvid=Data('tokenizer/dvae_camvid', 80, 12, labels=False))
# BEiT with a table of positions instead of relative ones: so that all encoders are of one kind.
TABLE = 'model.backbone.use_abs_pos_emb=True', 'model.backbone.use_shared_rel_pos_bias=False'
CAE = 'pretrain/cae_vitt_{data}'
WHOLE = 'pretrain/ablation/cae_vitt_{data}_whole'
MASKS = 'train_dataloader.dataset.dataset.pipeline.2.num_masked='
STILL = tuple(f'model.{part}.drop_path_rate=0.1' for part in ('backbone', 'neck', 'head'))
COMPARED = dict(
    mae=Method('pretrain/peers/mae_vitt_{data}'),
    beit=Method('pretrain/peers/beit_vitt_{data}', TABLE, TOKENIZER),
    mmcae=Method('pretrain/peers/mmcae_vitt_{data}', (), TOKENIZER),
    cae=Method(CAE, (), TOKENIZER),
    cae_whole=Method(WHOLE, (), TOKENIZER),
    cae_pixels=Method('pretrain/ablation/cae_vitt_{data}_pixels'),
    cae_paired=Method(WHOLE, ('model.paired=True',), TOKENIZER),
    cae_v2=Method('pretrain/cae_v2_vitt_{data}', (), 'cae'))
ABLATION = dict(  # trained for as many epochs as the whole, whatever a step costs
    no_align=Method('pretrain/ablation/cae_vitt_{data}_no_align', (), TOKENIZER),
    no_decoder=Method('pretrain/ablation/cae_vitt_{data}_no_decoder', (), TOKENIZER),
    neither=Method(CAE, (), TOKENIZER),
    random_masks=Method('pretrain/ablation/cae_vitt_{data}_random_masks', (), TOKENIZER),
    masks_40=Method(WHOLE, (MASKS + '26',), TOKENIZER),
    masks_60=Method(WHOLE, (MASKS + '38',), TOKENIZER),
    regressor_1=Method(WHOLE, ('model.neck.depth=1',), TOKENIZER),
    drop_path=Method(WHOLE, STILL, TOKENIZER),
    masks_24=Method(WHOLE, (MASKS + '24',), TOKENIZER))
METHODS = COMPARED | ABLATION


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    from terminal import NATURAL, Parser
    parser = Parser(description=__doc__.split('\n')[0])
    parser.add_argument('data', nargs='?', choices=DATA)
    parser.add_argument('--data-root', type=Path, metavar='DIR')
    parser.add_argument('--methods', nargs='+', choices=[RANDOM, *METHODS],
                        default=[RANDOM, *COMPARED])
    parser.add_argument('--ablation', dest='methods', action='store_const', const=[*ABLATION],
                        help='the methods of the ablation')
    parser.add_argument('--seeds', type=NATURAL, nargs='+', default=[0])
    parser.add_argument('--minutes', type=float, help='of one core, tokenizer included')
    parser.add_argument('--flops', action='store_true', help="as many operations as CAE's in these minutes")
    parser.add_argument('--out', type=Path, default=Path('work_dirs/evidence'))
    parser.add_argument('--time', action='store_true', help='measure the steps of all methods')
    parser.add_argument('--rates', action='store_true', help='choose the learning rates')
    parser.add_argument('--table', action='store_true', help='write the tables')
    return parser.parse_args()


def note(kind: str, key: str, value: dict) -> None:
    """Keep a record; several processes may do so at the same time."""
    with open(RECORDS.with_suffix('.lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        records = read()
        records.setdefault(kind, {})[key] = value
        temporary = RECORDS.with_suffix('.partial')
        temporary.write_text(json.dumps(records, indent=1, sort_keys=True) + '\n')
        temporary.replace(RECORDS)


def read() -> dict:
    """All records."""
    return json.loads(RECORDS.read_text()) if RECORDS.is_file() else {}


@dataclass(frozen=True)
class Run:
    """The pre-training of a method on some images, with a seed."""
    data: str
    method: str
    root: Path
    out: Path
    minutes: float
    flops: bool
    seed: int = 0
    rate: float = RATES[0]

    def seconds(self, method: str) -> float:
        """Of one core, for an image of a method's training."""
        return read()['times'][f'{self.data} {method}']['seconds']

    def gflops(self, method: str) -> float:
        """For an image of a method's training."""
        return read()['times'][f'{self.data} {method}']['gflops']

    @property
    def teacher(self) -> str | None:
        """What is trained before."""
        return METHODS[self.method].teacher if self.method in METHODS else None

    def per_epoch(self, method: str) -> int:
        """Images that a training sees in an epoch, whose last batch is left out."""
        images, batch = len(pictures(self.root, self.data)), 64 if method == TOKENIZER else 32
        return images // batch * batch

    @property
    def epochs(self) -> int:
        """As many as the budget allows, the tokenizer's subtracted; a teacher's time is its own."""
        if self.method in (TOKENIZER, RANDOM):
            return DATA[self.data].tokenizer_epochs * (self.method == TOKENIZER)
        if self.method in ABLATION:
            return replace(self, method='cae_whole').epochs
        cost = self.gflops if self.flops else self.seconds
        budget = self.minutes * 60
        if self.flops:
            budget = replace(self, method='cae', flops=False).cost()['gflops']
        if self.teacher == TOKENIZER:
            budget -= self.before().cost()['gflops' if self.flops else 'seconds']
        return max(1, round(budget / cost(self.method) / self.per_epoch(self.method)))

    def cost(self) -> dict:
        """Seconds of one core and operations, and what of these its tokenizer took; none of an ablation."""
        if self.method == RANDOM:
            return dict(seconds=0., gflops=0.)
        if self.method in ABLATION:
            return {}
        images = self.per_epoch(self.method) * self.epochs
        own = dict(seconds=images * self.seconds(self.method), gflops=images * self.gflops(self.method))
        if self.teacher != TOKENIZER:
            return own
        before = self.before().cost()
        return {**{unit: own[unit] + before[unit] for unit in own}, 'before': before}

    @property
    def folder(self) -> Path:
        """Where it is trained."""
        name = self.method + '_flops' * self.flops
        return (self.out / self.data / self.root.name / name
                / f'{self.minutes:g}min_{self.rate:g}_seed{self.seed}').resolve()

    @property
    def checkpoint(self) -> Path:
        """What it ends with."""
        return self.folder / f'epoch_{self.epochs}.pth'

    def options(self, epochs: int) -> list[str]:
        """Of its config."""
        method = METHODS.get(self.method, Method(DATA[self.data].tokenizer))
        chosen = [f'train_cfg.max_epochs={epochs}', f'randomness.seed={self.seed}', *method.options]
        if self.method == TOKENIZER:
            return chosen
        chosen += [f'optim_wrapper.optimizer.lr={self.rate:g}',
                   f'param_scheduler.warmup_epochs={epochs / 10:.3g}']
        if DATA[self.data].labels:
            chosen.append(f'default_hooks.knn.interval={max(1, epochs // 4)}')
        if self.teacher:
            chosen.append(f'tokenizer={self.before().checkpoint}')
        return chosen

    def before(self) -> 'Run':
        """The training of its tokenizer or teacher."""
        rate = read().get('rates', {}).get(f'{self.data} {self.teacher}', {}).get('rate', RATES[0])
        return replace(self, method=self.teacher, flops=False, rate=rate)

    def config(self) -> str:
        """Path of its config."""
        method = METHODS.get(self.method, Method(DATA[self.data].tokenizer))
        return f'configs/{method.config.format(data=self.data)}.py'

    def train(self) -> None:
        """Train what is not trained yet, and what it needs before."""
        if self.teacher:
            self.before().train()
        if self.method != RANDOM and not self.checkpoint.is_file():
            command('tools/train.py', self.config(), '--amp', '--resume', '--data-root', self.root,
                    '--work-dir', self.folder, '--cfg-options', *self.options(self.epochs),
                    log=self.folder / 'output.log')

    def curve(self) -> list[list[float]]:
        """Epoch, k-NN and linear accuracy, as they were measured during the training."""
        from cae_mm.visualization.curves import read_scalars, series
        scalars = read_scalars(self.folder)
        (steps, knn), (_, linear) = (series(scalars, name) for name in ('knn/top1_k10', 'linear/top1'))
        return [[int(step), round(float(a), 2), round(float(b), 2)]
                for step, a, b in zip(steps, knn, linear, strict=True)]

    def evaluate(self) -> dict:
        """Its record: what was measured of it."""
        found = dict(epochs=self.epochs, rate=self.rate, date=time.strftime('%Y-%m-%d'),
                     **self.cost())
        tasks, where = dict(upernet='upernet'), ('--ade20k', self.root)
        if DATA[self.data].labels:
            tasks, where = dict(attentive='attentive', finetune='finetune'), ('--imagenet', self.root)
            if self.method in ABLATION:
                del tasks['finetune']
            if self.method == RANDOM:
                tasks |= dict(knn='knn', linear='linear_quick')
            else:
                found['curve'] = self.curve()
                found['knn'], found['linear'] = found['curve'][-1][1:]
        bench = self.folder / 'bench'
        command('tools/benchmark.py', f'configs/benchmark/evidence_{self.data}.py', '--models',
                f'{self.method}={"none" if self.method == RANDOM else self.checkpoint}', *where,
                '--tasks', *tasks.values(), '--seeds', self.seed,
                '--gpus', 0, '--out', bench, log=self.folder / 'benchmark.log')
        for name, task in tasks.items():
            [record] = bench.glob(f'cells/*/{task}/*/record.json')
            found[name] = round(json.loads(record.read_text())['value'], 2)
        return found


def pictures(root: Path, data: str) -> list[Path]:
    """The training images."""
    part = 'train' if DATA[data].labels else 'images/training'
    return sorted(path for path in (root / part).rglob('*') if path.suffix.lower() in ('.jpg', '.png'))


def command(*parts, log: Path) -> None:
    """Run one of the project's tools; its progress is printed.

    Raises:
        RuntimeError: when it fails.
    """
    from cae_mm.engine.commands import run_command, show_progress
    words = [str(part) for part in parts]
    print('python', *words, flush=True)
    if run_command([sys.executable, '-W', 'ignore', *words], log, ROOT, show_progress):
        raise RuntimeError(f'{words[0]} failed: {log}')


def measure(run: Run, steps: int = 40) -> dict:
    """Seconds and operations for an image of a training: medians of steps, images read and all."""
    import statistics

    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from cae_mm.engine import launch
    from cae_mm.engine.literals import parse_value
    options = {key: parse_value(value)
               for key, _, value in (text.partition('=') for text in run.options(1))}
    cfg = launch.load_config(Namespace(
        config=str(ROOT / run.config()), launcher='none', data_root=[str(run.root)], pretrained=None,
        backbone=None, work_dir=str(run.folder.parent / 'time'), cfg_options=options))
    cfg.optim_wrapper.amp = True
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    runner = launch.build_runner(cfg, 'train')
    for key, value in (('iter', 0), ('max_iters', steps)):  # the tokenizer's temperature follows these
        runner.message_hub.update_info(key, value)
    wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    runner.model.train()
    loader, times = runner.build_dataloader(cfg.train_dataloader, seed=0), []
    while len(times) < steps:
        start = time.perf_counter()
        for batch in loader:
            runner.model.train_step(batch, wrapper)
            now = time.perf_counter()
            times.append(now - start)
            start = now
            if len(times) == steps:
                break
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        runner.model.train_step(batch, wrapper)
    size = cfg.train_dataloader.batch_size
    return dict(seconds=round(statistics.median(times[5:]) / size, 6),
                gflops=round(counter.get_total_flops() / size / 1e9, 4),
                torch=torch.__version__, date=time.strftime('%Y-%m-%d'))


def choose_rate(run: Run) -> float:
    """The better of ``RATES``, by the mean of k-NN and linear accuracy on images held out of training."""
    from cae_mm.benchmark.subsets import make
    held = run.out / 'held_out' / run.data
    make('imagenet', run.root, held, {'train': ('train', lambda number: number % HELD_OUT > 0),
                                      'val': ('train', lambda number: number % HELD_OUT == 0)})
    found = {}
    for rate in RATES:
        trial = replace(run, root=held, rate=rate)
        trial.train()
        found[f'{rate:g}'] = trial.curve()[-1][1:]
    best = max(found, key=lambda rate: sum(found[rate]))
    note('rates', f'{run.data} {run.method}', dict(rate=float(best), held_out=found))
    return float(best)


def main() -> None:
    """Measure, choose, train or write, as the command line says."""
    args = parse_args()
    if args.table:
        import evidence_table
        evidence_table.write(read())
        return
    if not args.data or not args.data_root:
        raise ValueError(f'name the images and their folder: {" or ".join(DATA)}, and --data-root DIR')
    minutes = args.minutes or DATA[args.data].minutes
    runs = [Run(args.data, method, args.data_root.resolve(), args.out, minutes, args.flops)
            for method in args.methods]
    for run in runs:
        key = f'{run.data} {run.method}'
        if run.method == RANDOM and (args.time or args.rates):
            continue
        if args.time:
            for each in {TOKENIZER: replace(run, method=TOKENIZER), run.method: run}.values():
                if f'{run.data} {each.method}' not in read().get('times', {}):
                    if each.teacher:
                        each.before().train()
                    note('times', f'{run.data} {each.method}', measure(each))
        elif args.rates:
            if key not in read().get('rates', {}):
                choose_rate(run)
        else:
            rate = read().get('rates', {}).get(key, {}).get('rate', RATES[0])
            for seed in args.seeds:
                each, name = replace(run, seed=seed, rate=rate), f'{run.method}{"_flops" * args.flops}'
                record = f'{run.data} {name} {minutes:g} {seed}'
                if record not in read().get('runs', {}):
                    each.train()
                    note('runs', record, each.evaluate())


if __name__ == '__main__':
    from terminal import run as run_main
    run_main(main)
