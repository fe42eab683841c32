#!/usr/bin/env python
"""Put encoders through the tasks of a suite, and compare them in a table.

    tools/benchmark.py configs/benchmark/small.py --models cae=CKPT random=none --imagenet DIR --out bench/
    tools/benchmark.py --merge bench/ others/ --out both/

A killed benchmark goes on where it was when it is called again; what is done is not repeated.
"""
import argparse
import sys
import time
from pathlib import Path

from terminal import NATURAL, POSITIVE, Parser, number, run

DATA = 'imagenet', 'coco', 'ade20k'


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(description=__doc__.split('\n')[0])
    parser.add_argument('suite', nargs='?', help='config in configs/benchmark/')
    parser.add_argument('--models', nargs='+', metavar='LABEL=[ENCODER:]FILE', default=[],
                        help="checkpoints: of the suite's own encoder, or of another one, as in "
                        'small=cae_vits:FILE or dinov3=timm:vit_base_patch16_dinov3:FILE; none in place of '
                        'FILE: random weights')
    parser.add_argument('--tasks', nargs='+', metavar='TASK', help='default: all whose data are given')
    for name in DATA:
        parser.add_argument(f'--{name}', type=Path, metavar='DIR', help=f"data in {name}'s layout")
    parser.add_argument('--seeds', type=NATURAL, nargs='+', default=[0])
    parser.add_argument('--gpus', type=NATURAL, default=None, help='default: all of this machine')
    parser.add_argument('--slurm', metavar='PARTITION', help='run each cell as a job of Slurm, with --gpus '
                        'of a node (needs submitit: pip install "cae-mm[slurm]")')
    parser.add_argument('--sweep', action='store_true', help='for each model and training, choose the '
                        'learning rate out of three, by images held out of training')
    parser.add_argument('--limit', type=POSITIVE, metavar='IMAGES', help='try everything, with the first '
                        'images of each part, one epoch or four iterations')
    parser.add_argument('--out', type=Path, default=Path('bench'), help='folder to write')
    parser.add_argument('--merge', type=Path, nargs='+', metavar='DIR',
                        help='one table of finished benchmarks: folders that were an --out')
    parser.add_argument('--dry-run', action='store_true', help='print the commands and their hours')
    parser.add_argument('--tflops', type=number(float, 0.001), help='of a device, for --dry-run; default: '
                        '100 for a GPU, 0.1 for the CPU')
    parser.add_argument('--list', action='store_true', help='print the tasks of the suite')
    return parser.parse_args()


def plan(cells: list, rate: float, sweep: bool) -> None:
    """Print all commands with the hours that their operations would take, of those shared once."""
    from cae_mm.benchmark.subsets import rates
    total, extracted = 0, set()
    for cell in cells:
        hours = cell.operations / rate / 1e12 / 3600
        if not cell.task.trains:
            shared = cell.model.label, cell.task.data, cell.seed if cell.model.is_random else 0
            hours *= shared not in extracted
            extracted.add(shared)
        elif sweep and cell.seed == cells[0].seed:
            print(f'# first, on images held out of training: {", ".join(rates(cell))}')
            hours *= 1 + len(rates(cell))
        total += hours
        print(f'# {cell.model.label}, {cell.task.name}, seed {cell.seed}: about {hours:.3g} hours of a '
              f'device\n{cell.shell()}')
    devices = max(1, cells[0].gpus)
    print(f'# {len(cells)} cells: about {total:.3g} hours of a device, {total / devices:.3g} on {devices} '
          f'at {rate:g} TFLOP/s each, without loading and the evaluations of trainings')


def tune(cells: list, slurm: str | None) -> list:
    """The cells, each training with the best of three learning rates of its model's first seed."""
    from dataclasses import replace

    from cae_mm.benchmark.subsets import candidates
    chosen = {}
    for cell in cells:
        place = cell.task.name, cell.model.label
        if not cell.task.trains or place in chosen:
            continue
        tried = candidates(cell)
        work(tried, slurm)
        found = {each.extra: record['value'] for each in tried if (record := each.record())}
        if not found:
            raise RuntimeError(f'no rate led to a number: {cell.model.label}, {cell.task.name}')
        chosen[place] = max(found, key=found.get)
        print(f'   chosen: {" ".join(chosen[place])}')
    return [replace(cell, extra=chosen.get((cell.task.name, cell.model.label), cell.extra))
            for cell in cells]


def work(cells: list, slurm: str | None) -> list:
    """Run what is not done; return the cells that failed."""
    from cae_mm.benchmark.slurm import submit
    from cae_mm.engine.commands import show_progress
    left = [cell for cell in cells if not cell.record()]
    jobs = submit(left, slurm, cells[0].out / 'slurm') if slurm and left else {}
    failed, start, done = [], time.monotonic(), 0
    for position, cell in enumerate(cells, 1):
        ahead = sum(other.operations for other in left)
        seconds = time.monotonic() - start
        rest = f', about {seconds / done * ahead / 60:.0f} min to go' if done and not jobs else ''
        print(f'\n[{position}/{len(cells)}{rest}] {cell.model.label}, {cell.task.name}, seed {cell.seed}\n'
              f'   {cell.shell()}', flush=True)
        if record := cell.record():
            print(f'   done on {record["date"]}')
            continue
        try:
            record = jobs[cell].result() if jobs else cell.run(show_progress)
            print(f'   {cell.task.metric} {record["value"]:.2f}, {record["seconds"]:.0f} s')
        except RuntimeError as error:
            failed.append(cell)
            print(f'   FAILED: {error}', flush=True)
        left.remove(cell)
        done += cell.operations
    return failed


def report(cells: list, records: list[dict], out: Path) -> None:
    """Write the tables and ``report.html``, with pictures where the models are here."""
    from cae_mm.benchmark import markdown, write_tables
    from cae_mm.benchmark.pictures import draw_encoders, draw_predictions
    from cae_mm.benchmark.report import write_benchmark
    rows, pictures = write_tables(records, out), {}
    done = [cell for cell in cells if cell.record()]
    first = {(cell.task.name, cell.model.label): cell for cell in reversed(done)}
    frozen = [*{cell.model.label: cell for cell in reversed(done) if not cell.task.trains}.values()][::-1]
    if frozen:
        pictures |= draw_encoders(frozen, frozen[0].data.folder / 'val', out)
    for task in dict.fromkeys(cell.task.name for cell in done):
        mine = [cell for (name, _), cell in first.items() if name == task][::-1]
        if mine[0].task.trains and (folder := mine[0].data.validation):
            pictures[task] = draw_predictions(mine, folder, out / f'{task}.png')
    write_benchmark(records, rows, out, pictures)
    print('\n' + markdown(rows))
    print(f'Open {out / "report.html"}')


def main() -> None:
    """Run as the command line says."""
    args = parse_args()
    if not (args.suite or args.merge):
        raise ValueError('name a suite of configs/benchmark/, or --merge with folders')

    import torch

    from cae_mm.benchmark import cells_of, choose, merge, parse_model, read_suite, with_reference
    from cae_mm.benchmark.cost import RATES
    from cae_mm.benchmark.subsets import limited
    from cae_mm.configs import find_config
    from cae_mm.engine import work_dir
    out = args.out.resolve()
    if args.merge:
        if args.suite or args.models:
            raise ValueError('--merge takes what is done: leave the suite and --models out')
        return report([], merge(args.merge), out)
    suite = read_suite(args.suite)
    if args.list:
        for task in suite.tasks.values():
            print(f'{task.name:<14} --{task.data:<10} {task.run}')
        return
    data = {name: folder.resolve() for name in DATA if (folder := getattr(args, name)) is not None}
    for name, folder in data.items():
        if not folder.is_dir():
            raise FileNotFoundError(f'--{name} {folder}: there is no such folder')
    tasks = choose(suite, args.tasks, data)
    models = [parse_model(text) for text in args.models]
    if not models or len({model.label for model in models}) < len(models):
        raise ValueError('--models: name at least one, each with a label of its own')
    gpus = torch.cuda.device_count() if args.gpus is None else args.gpus
    cells = cells_of(suite, models, tasks, args.seeds, data, out, gpus)
    if args.dry_run:
        return plan(cells, args.tflops or RATES['gpu' if gpus else 'cpu'], args.sweep)
    work_dir.lock(out)
    for cell in {cell.model.label: cell for cell in cells}.values():
        cell.check_weights()
    if args.limit:
        cells = limited(cells, args.limit)
        out = cells[0].out
    if args.sweep:
        cells = tune(cells, args.slurm)
    failed = work(cells, args.slurm)
    records = [record for cell in cells if (record := cell.record())]
    if records:
        known = find_config(args.suite).parent / 'reference' / f'{suite.name}.json'
        report(cells, with_reference(records, known), out)
    if failed:
        sys.exit(f'{len(failed)} of {len(cells)} cells failed; the same command tries them again')


if __name__ == '__main__':
    run(main)
