"""Time and memory of training steps of two contenders that take turns.

Each lives in a process of its own, so that the memory is each one's own and a disturbance of the
machine hits both.
"""
import argparse
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
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast for both')
    parser.add_argument('--work', help=argparse.SUPPRESS)
    return parser


def work(args: argparse.Namespace, build: Callable) -> None:
    """Build one contender; take a step and print its seconds and memory for every line read."""
    results, sys.stdout = sys.stdout, sys.stderr  # packages print while they are imported
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import DefaultScope
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


def run(args: argparse.Namespace, builders: dict[str, Callable]) -> None:
    """Let both take turns and print images/s, peak memory and the ratios of the first to the second.

    Args:
        args (argparse.Namespace): of :func:`make_parser`.
        builders (dict[str, Callable]): name -> function of ``args`` that gives a model, the config of
            its optimizer wrapper and a batch for its ``train_step``.
    """
    if args.work:
        return work(args, builders[args.work])
    allocator = ALLOCATOR if args.device == 'cpu' else {}
    workers = {name: subprocess.Popen(
        [sys.executable, *sys.argv, '--work', name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env={**allocator, **os.environ}) for name in builders}
    parameters = {name: read(name, worker)[0] for name, worker in workers.items()}
    seconds, peak = {name: [] for name in workers}, {}
    for step in range(args.warmup + args.steps):
        for name, worker in workers.items():
            print(file=worker.stdin, flush=True)
            took, memory = read(name, worker)
            peak[name] = memory / 2**30
            if step >= args.warmup:
                seconds[name].append(took)
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    speed = {name: args.batch_size / median(times) for name, times in seconds.items()}
    print(f'torch {torch.__version__}, {args.device}, {args.threads} threads, batch {args.batch_size}, '
          f'{"bfloat16" if args.amp else "float32"}, median of {args.steps} steps')
    for name in workers:
        print(f'{name:30s} {parameters[name] / 1e6:7.2f} M trained parameters  '
              f'{speed[name]:7.2f} images/s  peak {peak[name]:5.2f} GiB')
    ours, peer = workers
    print(f'{"ratio":30s} {speed[ours] / speed[peer]:.2f} x images/s, '
          f'{peak[ours] / peak[peer]:.2f} x memory')
