#!/usr/bin/env python
"""Put encoders through the tasks of a suite, and compare them in a table.

    tools/benchmark.py configs/benchmark/small.py --models cae=CKPT random=none --imagenet DIR --out bench/

A killed benchmark goes on where it was when it is called again; what is done is not repeated.
"""
import argparse
import sys
from pathlib import Path

from terminal import NATURAL, Parser, run


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(description=__doc__.split('\n')[0])
    parser.add_argument('suite', help='config in configs/benchmark/')
    parser.add_argument('--models', nargs='+', metavar='LABEL=[ENCODER:]FILE', default=[],
                        help="checkpoints: of the suite's own encoder, or of another one, as in "
                        'small=cae_vits:FILE or dinov3=timm:vit_base_patch16_dinov3:FILE; none in place of '
                        'FILE: random weights')
    parser.add_argument('--tasks', nargs='+', metavar='TASK', help='default: all whose data are given')
    for name in ('imagenet', 'coco', 'ade20k'):
        parser.add_argument(f'--{name}', type=Path, metavar='DIR', help=f"data in {name}'s layout")
    parser.add_argument('--seeds', type=NATURAL, nargs='+', default=[0])
    parser.add_argument('--gpus', type=NATURAL, default=None, help='default: all of this machine')
    parser.add_argument('--out', type=Path, default=Path('bench'), help='folder to write')
    parser.add_argument('--dry-run', action='store_true', help='print the commands')
    parser.add_argument('--list', action='store_true', help='print the tasks of the suite')
    return parser.parse_args()


def progress(line: str) -> None:
    """Show where a training is."""
    if 'INFO - Epoch(' in line or 'INFO - Iter(' in line:
        print('     ' + line.split('INFO - ')[-1].split('grad_norm')[0].strip(), flush=True)


def main() -> None:
    """Run as the command line says."""
    args = parse_args()

    import torch

    from cae_mm.benchmark import cells_of, choose, markdown, parse_model, read_suite, results, write
    from cae_mm.engine import work_dir
    suite = read_suite(args.suite)
    if args.list:
        for task in suite.tasks.values():
            print(f'{task.name:<14} --{task.data:<10} {task.run}')
        return
    data = {name: folder.resolve() for name in ('imagenet', 'coco', 'ade20k')
            if (folder := getattr(args, name)) is not None}
    for name, folder in data.items():
        if not folder.is_dir():
            raise FileNotFoundError(f'--{name} {folder}: there is no such folder')
    tasks = choose(suite, args.tasks, data)
    models = [parse_model(text) for text in args.models]
    labels = [model.label for model in models]
    if not models or len(set(labels)) < len(labels):
        raise ValueError('--models: name at least one, each with a label of its own')
    gpus = torch.cuda.device_count() if args.gpus is None else args.gpus
    cells = cells_of(suite, models, tasks, args.seeds, data, args.out.resolve(), gpus)
    if args.dry_run:
        print(*(cell.shell() for cell in cells), sep='\n')
        return
    work_dir.lock(args.out.resolve())
    failed = []
    for number, cell in enumerate(cells, 1):
        print(f'\n[{number}/{len(cells)}] {cell.model.label}, {cell.task.name}, seed {cell.seed}\n'
              f'   {cell.shell()}', flush=True)
        if record := cell.record():
            print(f'   done on {record["date"]}')
            continue
        try:
            record = cell.run(progress)
        except RuntimeError as error:
            failed.append(cell)
            print(f'   FAILED: {error}', flush=True)
            continue
        print(f'   {cell.task.metric} {cell.task.percent * record["metrics"][cell.task.metric]:.2f}, '
              f'{record["seconds"]:.0f} s')
    rows = results(cells)
    write(rows, labels, args.out)
    print('\n' + markdown(rows, labels))
    if failed:
        sys.exit(f'{len(failed)} of {len(cells)} cells failed; the same command tries them again')


if __name__ == '__main__':
    run(main)
