#!/usr/bin/env python
"""Tell what a training will take on GPUs, before it runs: memory, hours, cores for the loader, disk."""
import argparse

from options import add_config_options
from terminal import POSITIVE, Parser, number, run

ASSUMED = 0.35  # MFU of a step that nothing holds up


def parse_args(args=None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(description=__doc__)
    add_config_options(parser)
    parser.add_argument('--gpus', type=POSITIVE, default=8, help='in all, of all machines')
    parser.add_argument('--device', default='h100-80g', metavar='NAME-MEMORY',
                        help='the GPU: h100-80g (default), h200-141g, a100-40g, l40s-48g, rtx-4090-24g ...')
    parser.add_argument('--fsdp', action='store_true', help='also simulate a step of one of these GPUs '
                        'where they share the model out: memory, bytes sent, collectives')
    parser.add_argument('--images', type=POSITIVE, metavar='N', help='for training, where the data are not '
                        'here and not those of ImageNet, COCO or ADE20K')
    parser.add_argument('--image-size', type=POSITIVE, nargs=2, default=(640, 480),
                        metavar=('WIDTH', 'HEIGHT'), help='of the files, in pixels; default: 640 480')
    speed = parser.add_mutually_exclusive_group()
    speed.add_argument('--mfu', type=number(float, 0.001, 1), metavar='SHARE', help='of the peak of the '
                       f'device, as in the log of a run (mfu); {ASSUMED} is assumed')
    speed.add_argument('--images-per-s', type=number(float, 0.001), metavar='N',
                       help='of one GPU, measured with this config, in place of an MFU')
    return parser.parse_args(args)


def gib(size: float) -> str:
    """Bytes in GiB."""
    return f'{size / 2**30:.2f}'


def main() -> None:
    """Estimate as the command line says."""
    args = parse_args()

    from mmengine.logging import MMLogger

    from cae_mm.benchmark import estimate as known
    from cae_mm.engine import launch
    MMLogger.get_current_instance().setLevel('ERROR')  # each step would log its groups of parameters
    peak, memory = known.parse_device(args.device)
    cfg = launch.load_config(args)
    estimate = known.Estimate(cfg, args.gpus, tuple(args.image_size))
    if args.images:
        if 'max_epochs' not in cfg.train_cfg:
            raise ValueError(f'--images {args.images}: {args.config} counts iterations, not epochs')
        estimate.images = args.images * cfg.train_cfg.max_epochs
    images, step, usual = estimate.images, estimate.step, estimate.operations
    print(f'{args.config}: {args.gpus} x {args.device}, bfloat16, {estimate.batch} images on each')
    print('parameters, M     ' + ', '.join(f'{name} {count / 1e6:.2f}'
                                           for name, count in step.parameters.items() if count))
    parts = ', '.join(f'{name} {count / 1e9:.2f}' for name, count in usual.forward.items() if count)
    print(f'GFLOP per image   forward: {parts}; whole step: {usual.operations / 1e9:.2f}')
    buckets = step.weights * (args.gpus > 1)
    whole = known.on_gpu(step, args.gpus, False)
    print(f'GiB on each GPU   weights {gib(step.weights)}, frozen and buffers {gib(step.fixed)}, gradients '
          f'{gib(step.gradients)}, of DDP {gib(buckets)}, optimizer {gib(step.optimizer)}, activations '
          f'{gib(step.activations)}: {gib(whole)} at the peak, '
          f'{"fits" if whole <= known.USABLE * memory * 2**30 else "does not fit"} into {memory}')
    if args.fsdp:
        shared = estimate.shared
        calls = ', '.join(f'{count} {name}' for name, count in shared.collectives.items())
        states = shared.weights + shared.gradients + shared.optimizer
        print(f'FSDP, simulated   {gib(shared.peak)} GiB at the peak of each GPU, of it weights, gradients '
              f'and optimizer {gib(states)}; {shared.sent / 1e9:.2f} GB sent by each in a step: {calls}')
    print('largest batch     ' + ''.join(f'{f"{size} GiB":>9}' for size in known.SIZES))
    for sharded in (False, True)[:1 + (args.gpus > 1)]:
        for checkpointing in (False, True) if estimate.can_checkpoint else (None,):
            label = ('FSDP' if sharded else 'DDP') + ', checkpointing' * bool(checkpointing)
            sizes = ''.join(f'{size or "-":>9}' for size in estimate.batches(sharded, checkpointing))
            print(f'  {label:<20}{sizes[4:]}')
    rate = args.images_per_s or peak * (args.mfu or ASSUMED) / usual.operations
    source = f'{args.mfu or ASSUMED} of {peak / 1e12:.0f} TFLOP/s' + ', assumed' * (args.mfu is None)
    hours = images / rate / args.gpus / 3600
    print(f'images/s          {rate * args.gpus:,.0f} of all GPUs, '
          f'{"as measured" if args.images_per_s else source}')
    print(f'hours             {hours:.2f}, {hours * args.gpus:.2f} GPU hours, for {images:,} images; '
          'without validation')
    print(f'loader            {1000 * estimate.seconds:.1f} ms per image and core, here: '
          f'{rate * estimate.seconds:.1f} cores for each GPU')
    print(f'disk, GiB         {gib(estimate.checkpoints * estimate.checkpoint)} for '
          f'{estimate.checkpoints} checkpoints of {gib(estimate.checkpoint)}')


if __name__ == '__main__':
    run(main)
