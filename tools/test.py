#!/usr/bin/env python
"""Evaluate a checkpoint with the test part of a config, or with its validation part."""
import argparse
from pathlib import Path

from options import add_config_options
from terminal import Parser, new_file, run


def parse_args(args=None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(description=__doc__)
    add_config_options(parser)
    parser.add_argument('checkpoint', help='path of the checkpoint')
    parser.add_argument('--out', type=new_file('.json', '.pkl'),
                        help='file to write: metrics (.json) or predictions (.pkl)')
    return parser.parse_args(args)


def main() -> None:
    """Test as the command line says."""
    args = parse_args()
    if not Path(args.checkpoint).exists():
        raise FileNotFoundError(f'there is no checkpoint {args.checkpoint}')

    import mmengine
    from mmengine.dist import is_main_process
    from mmengine.evaluator import DumpResults

    from cae_mm.engine import launch
    cfg = launch.load_config(args)
    part = next((name for name in ('test', 'val') if cfg.get(f'{name}_dataloader')), None)
    if part is None:
        raise ValueError(f'{args.config} evaluates nothing: it has neither a test_dataloader nor a '
                         'val_dataloader. For a pre-trained backbone see tools/knn.py')
    cfg.resume, cfg.load_from = False, args.checkpoint
    launch.start_processes(cfg)
    runner = launch.build_runner(cfg, part)
    if args.out and args.out.suffix == '.pkl':
        getattr(runner, f'{part}_evaluator').metrics.append(DumpResults(out_file_path=str(args.out)))
    metrics = getattr(runner, part)()
    if args.out and args.out.suffix == '.json' and is_main_process():
        mmengine.dump(metrics, args.out)


if __name__ == '__main__':
    run(main)
