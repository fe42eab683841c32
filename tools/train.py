#!/usr/bin/env python
"""Train the model of a config: pre-training, tokenizer, classification, detection, segmentation."""
import argparse
import os
from pathlib import Path

from options import add_config_options
from terminal import Parser, run


def parse_args(args=None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(description=__doc__)
    add_config_options(parser)
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='continue from this checkpoint; without a value or with auto, from '
                        'the newest whole one in the work directory, or from the start if there is none')
    parser.add_argument('--pretrained', metavar='CHECKPOINT',
                        help='weights of the backbone, of any origin that tools/convert.py knows; '
                        'none: random weights')
    parser.add_argument('--new-parts', nargs='+', metavar='PART',
                        help='parts of the model that do not start from load_from, as for other '
                        'classes: roi_head.bbox_head.fc_cls, decode_head.conv_seg')
    parser.add_argument('--amp', action=argparse.BooleanOptionalAction, default=None,
                        help='bfloat16 or float32; default: bfloat16 on GPUs, float32 on CPU')
    parser.add_argument('--fsdp', action='store_true',
                        help='share parameters, gradients and optimizer states out to the processes, '
                        'for models that one GPU has no room for')
    parser.add_argument('--deterministic', action='store_true',
                        help='the same numbers, bit for bit, in each run on the same GPUs; slower')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate with the batch size of all processes')
    parser.add_argument('--log', nargs='+', default=(), choices=('tensorboard', 'wandb', 'mlflow'),
                        help='send numbers and pictures there too; each is a package of this name')
    return parser.parse_args(args)


def merge_args(cfg, args) -> None:
    """Write the options of training into the config."""
    if args.new_parts:
        if cfg.load_from is None:
            raise ValueError('--new-parts are those that a checkpoint does not fill: name one with '
                             '--cfg-options load_from=CHECKPOINT')
        cfg.default_hooks.strict_load.new_parts = args.new_parts
    if args.resume == 'auto':
        cfg.resume = 'auto'
    elif args.resume is not None:
        if not Path(args.resume).exists():
            raise FileNotFoundError(f'--resume {args.resume}: there is no such checkpoint')
        cfg.resume, cfg.load_from = True, args.resume
    if args.amp is not None:
        if cfg.optim_wrapper.get('type', '').split('.')[-1] == 'AutocastOptimWrapper':
            cfg.optim_wrapper.amp = args.amp
        elif args.amp:
            cfg.optim_wrapper.type = 'AmpOptimWrapper'
            cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
        else:
            cfg.optim_wrapper.type = 'OptimWrapper'
            cfg.optim_wrapper.pop('loss_scale', None)
    if args.fsdp:
        cfg.model_wrapper_cfg = dict(cfg.get('model_wrapper_cfg') or {}, type='mmpretrain.ShardedModel')
    if args.deterministic:
        cfg.merge_from_dict({'randomness.deterministic': True, 'env_cfg.cudnn_benchmark': False})
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # read when CUDA starts
    if args.auto_scale_lr:
        if cfg.get('auto_scale_lr', {}).get('base_batch_size') is None:
            raise ValueError(f'--auto-scale-lr: {args.config} does not say for how many images its '
                             'learning rate is: add auto_scale_lr=dict(base_batch_size=...)')
        cfg.auto_scale_lr.enable = True
        # mmengine compares it with the images of one forward pass.
        cfg.auto_scale_lr.base_batch_size /= cfg.optim_wrapper.get('accumulative_counts', 1)


def main() -> None:
    """Train as the command line says."""
    args = parse_args()
    if args.resume is None and int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)):
        args.resume = 'auto'  # torchrun has started all anew after one was lost

    from cae_mm.engine import launch
    from cae_mm.engine.log import log_to
    cfg = launch.load_config(args)
    if cfg.model.type.endswith('TTAModel'):
        raise ValueError(f'{args.config} is for tools/test.py alone: train with the config it is based on')
    merge_args(cfg, args)
    log_to(cfg, args.log)
    launch.start_processes(cfg)
    launch.build_runner(cfg, 'train', 'val').train()


if __name__ == '__main__':
    run(main)
