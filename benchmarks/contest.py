"""Time and memory of training steps of contenders that take turns.

Each lives in a process of its own, so that the memory is each one's own and a disturbance of the
machine hits all.
"""
import argparse
import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import torch

# What tools/python.sh sets on CPUs, for both.
ALLOCATOR = dict(MALLOC_MMAP_THRESHOLD_='4294967296', MALLOC_TRIM_THRESHOLD_='17179869184')


def make_parser(description: str) -> argparse.ArgumentParser:
    """The options that all contests share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'])
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--steps', type=int, default=5, help='timed steps of each')
    parser.add_argument('--warmup', type=int, default=2)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast for all')
    parser.add_argument('--mixed', action='store_true', help='ours in bfloat16 too, as it is with --amp')
    parser.add_argument('--as-shipped', action='store_true', help="without the allocator's settings for "
                        'the peer, who has none')
    parser.add_argument('--work', help=argparse.SUPPRESS)
    return parser


def work(args: argparse.Namespace, build: Callable) -> None:
    """Build one contender; take a step and print its seconds and memory for every line read."""
    results, sys.stdout = sys.stdout, sys.stderr  # packages print while they are imported
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import DefaultScope

    import cae_mm  # noqa: F401  without which mmpretrain is not imported beside transformers
    DefaultScope.get_instance('benchmark', scope_name='mmpretrain')
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model, wrapper, batch = build(args)
    model = model.to(args.device).train()
    wrapper = build_optim_wrapper(model, wrapper)
    cuda = args.device == 'cuda'
    print(sum(p.numel() for p in model.parameters() if p.requires_grad), file=results, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        model.train_step(batch, wrapper)
        if cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        peak = (torch.cuda.max_memory_allocated() if cuda else
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        print(seconds, peak, file=results, flush=True)


def read(name: str, worker: subprocess.Popen) -> list[float]:
    """The numbers of a worker's next line.

    Raises:
        SystemExit: when the worker has failed.
    """
    line = worker.stdout.readline()
    if not line:
        sys.exit(f'{name} failed; echo | the same command with --work "{name}" says why')
    return [float(word) for word in line.split()]


def matrix_rates(args: argparse.Namespace) -> dict[str, float]:
    """The machine's best FLOP/s for matrix products of the size of a ViT-B's, in both precisions."""
    torch.set_num_threads(args.threads)
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(2048, 768).to(dtype), torch.randn(768, 3072).to(dtype)
        times, product = [], torch.empty(2048, 3072, dtype=dtype)
        for _ in range(30):
            start = time.perf_counter()
            torch.mm(a, b, out=product)
            times.append(time.perf_counter() - start)
        rates[str(dtype).removeprefix('torch.')] = 2 * 2048 * 768 * 3072 / min(times)
    return rates


def count_flops(args: argparse.Namespace, build: Callable) -> float:
    """Operations of a step for an image."""
    logging.disable()  # a table of parameters is no result
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import DefaultScope
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    import cae_mm  # noqa: F401
    DefaultScope.get_instance('benchmark', scope_name='mmpretrain')
    model, wrapper, batch = build(argparse.Namespace(**vars(args) | dict(batch_size=2)))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.train().train_step(batch, build_optim_wrapper(model, wrapper))
    return counter.get_total_flops() / 2


def run(args: argparse.Namespace, builders: dict[str, Callable]) -> None:
    """Let all take turns and print images/s, peak memory and the ratios to the last, the peer.

    Args:
        args (argparse.Namespace): of :func:`make_parser`.
        builders (dict[str, Callable]): name -> function of ``args`` that gives a model, the config of
            its optimizer wrapper and a batch for its ``train_step``.
    """
    ours, peer = builders
    if args.mixed:
        bfloat16, build = argparse.Namespace(**vars(args) | dict(amp=True)), builders[ours]
        builders = {ours: build, f'{ours} bfloat16': lambda _: build(bfloat16), peer: builders[peer]}
    if args.work:
        return work(args, builders[args.work])
    flops = count_flops(args, builders[ours]) if args.device == 'cpu' else None
    workers = {}
    for name in builders:
        allocator = {} if args.device == 'cuda' or args.as_shipped and name == peer else ALLOCATOR
        workers[name] = subprocess.Popen(
            [sys.executable, *sys.argv, '--work', name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env={**allocator, **os.environ})
    parameters = {name: read(name, worker)[0] for name, worker in workers.items()}
    seconds, peak, rates = {name: [] for name in workers}, {}, {}
    for step in range(args.warmup + args.steps):
        for name, worker in workers.items():
            print(file=worker.stdin, flush=True)
            took, memory = read(name, worker)
            peak[name] = memory / 2**30
            if step >= args.warmup:
                seconds[name].append(took)
        if args.device == 'cpu':
            for dtype, rate in matrix_rates(args).items():
                rates[dtype] = max(rate, rates.get(dtype, 0))
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    speed = {name: args.batch_size / median(times) for name, times in seconds.items()}
    print(f'torch {torch.__version__}, {args.device}, {args.threads} threads, batch {args.batch_size}, '
          f'{"bfloat16" if args.amp else "float32"}, median of {args.steps} steps')
    for name in workers:
        print(f'{name:30s} {parameters[name] / 1e6:7.2f} M trained parameters  '
              f'{speed[name]:7.2f} images/s  peak {peak[name]:5.2f} GiB')
    for name in [*builders][:-1]:
        print(f'{name} / {peer:30s} {speed[name] / speed[peer]:.2f} x images/s, '
              f'{peak[name] / peak[peer]:.2f} x memory')
    if rates:
        print(f'{ours}: {flops / 1e9:.1f} GFLOP for an image; at the rate of matrix products, images/s: '
              + ', '.join(f'{rate / flops:.2f} in {dtype} ({rate / 1e9:.0f} GFLOP/s)'
                        for dtype, rate in rates.items()))
