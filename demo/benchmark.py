#!/usr/bin/env python
"""Compare three encoders in six tasks, in minutes: random weights, the demo's CAE, and an MAE.

    python demo/benchmark.py

Begins with those steps of demo/demo.py that were not done yet, in the same folder; then mmpretrain's MAE is
pre-trained on the same images for as many minutes. Every step is a command that is printed before it runs;
what is done is not repeated.
"""
import sys
from pathlib import Path

from steps import PRETRAIN_VIEWS, ROOT, TOKENIZER_VIEWS, Steps, pretrain, train_step
from terminal import POSITIVE, Parser, run

from cae_mm.engine.commands import run_command

MAE = 'configs/pretrain/peers/mae_vitt_demo.py'
# As long as the tokenizer's and CAE's on two cores in bfloat16: 4,000 steps of 0.123 s, against 625 of 0.15
# and 3,500 of 0.118.
MAE_VIEWS = 128_000


def main() -> None:
    """Run all steps."""
    parser = Parser(description=__doc__.split('\n')[0])
    parser.add_argument('--out', type=Path, default=Path('demo_out'), help='folder of the demo, default: '
                        'demo_out; what demo/demo.py made there of the embedded data is used')
    parser.add_argument('--views', type=POSITIVE, nargs=3, metavar=('TOKENIZER', 'CAE', 'MAE'),
                        default=(TOKENIZER_VIEWS, PRETRAIN_VIEWS, MAE_VIEWS),
                        help='images that the pre-trainings see')
    parser.add_argument('--tasks', nargs='+', metavar='TASK', help='some of configs/benchmark/demo.py')
    args = parser.parse_args()
    steps = Steps(args.out.resolve())
    data = steps.out / 'data'
    _, cae = pretrain(steps, None, args.views[:2])
    mae = steps.run(train_step('Pre-train MAE', MAE, steps.out / 'mae', data / 'imagenet', args.views[2],
                               32))
    command = ['tools/benchmark.py', 'configs/benchmark/demo.py', '--models', 'random=none', f'cae={cae}',
               f'mae={mae}', '--imagenet', data / 'imagenet', '--coco', data / 'coco', '--ade20k',
               data / 'ade', '--gpus', 0, '--out', steps.out / 'benchmark',
               *(['--tasks', *args.tasks] if args.tasks else [])]
    print('\n== Benchmark')
    sys.exit(run_command([sys.executable, '-W', 'ignore', *map(str, command)],
                         steps.out / 'logs/benchmark.log', ROOT, lambda line: print(line, end='')))


if __name__ == '__main__':
    run(main)
