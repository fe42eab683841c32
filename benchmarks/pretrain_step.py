"""Time and memory of a pre-training step, against mmpretrain's own CAE in the same run.

    python benchmarks/pretrain_step.py                       # float32 on the CPU, ViT-B dimensions
    python benchmarks/pretrain_step.py --device cuda --batch-size 256 --amp --compile

A step is data preprocessing, forward, backward, clipping and the optimizer. Both contenders live in
processes of their own, which take turns, so that the memory is each one's own and a disturbance of the
machine hits both. Same dimensions, batch, masks, tokenizer (random weights) and precision.
"""
import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch

ROOT = Path(__file__).resolve().parents[1]
NUM_MASKED = 98


def make_batch(batch_size):
    """uint8 images, tokenizer images and masks, the same for both contenders."""
    generator = torch.Generator().manual_seed(0)
    images, targets = (torch.randint(0, 256, (batch_size, 3, s, s), dtype=torch.uint8,
                                     generator=generator) for s in (224, 112))
    mask = torch.rand(batch_size, 196, generator=generator).argsort(1) < NUM_MASKED
    return images, targets, mask


def build_ours(args):
    """This project's ViT-B config with random tokenizer weights."""
    from mmengine import Config
    from mmpretrain.registry import MODELS

    import cae_mm  # noqa: F401
    config = Config.fromfile(ROOT / 'configs/pretrain/cae_vitb_300e.py')
    config.model.target_generator = dict(type='DALLETokenizer', allow_random=True)
    if not args.amp:
        config.model.target_generator.dtype = 'float32'
    model = MODELS.build(config.model)
    images, targets, mask = make_batch(args.batch_size)
    batch = dict(inputs=dict(images=images, target_images=targets, mask=mask))
    return model, dict(config.optim_wrapper, amp=args.amp), batch


def build_peer(args):
    """mmpretrain's config of CAE, with our number of masked patches and no download."""
    import mmpretrain
    from mmengine import Config
    from mmpretrain.registry import MODELS
    from mmpretrain.structures import DataSample

    [path] = Path(mmpretrain.__file__).parent.glob('.mim/configs/cae/*300e_in1k.py')
    config = Config.fromfile(path)
    config.model.target_generator.init_cfg = None
    config.model.neck.mask_tokens_num = NUM_MASKED
    config.model.data_preprocessor = config.data_preprocessor
    model = MODELS.build(config.model)
    model.init_weights()
    images, targets, mask = make_batch(args.batch_size)
    samples = []
    for row in mask:
        samples.append(DataSample())
        samples[-1].set_field(row.view(14, 14).long(), 'mask', field_type='metainfo')
    wrapper = dict(config.optim_wrapper)
    wrapper.pop('loss_scale')
    wrapper.update(dict(type='AmpOptimWrapper', dtype='bfloat16') if args.amp else
                   dict(type='OptimWrapper'))
    # Its preprocessor reorders BGR and expects a batch per view.
    return model, wrapper, dict(inputs=[images, targets], data_samples=samples)


def work(args):
    """Build one contender; take a step and print its seconds for every line read."""
    results, sys.stdout = sys.stdout, sys.stderr  # packages print while they are imported
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import DefaultScope
    DefaultScope.get_instance('benchmark', scope_name='mmpretrain')
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model, wrapper, batch = (build_ours if args.work == 'ours' else build_peer)(args)
    model = model.to(args.device).train()
    wrapper = build_optim_wrapper(model, wrapper)
    if args.compile and args.work == 'ours':
        model.compile_forward()
    cuda = args.device == 'cuda'
    print(sum(p.numel() for p in model.parameters() if p.requires_grad),
          file=results, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        model.train_step(batch, wrapper)
        if cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        peak = (torch.cuda.max_memory_allocated() if cuda else
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        print(seconds, peak, file=results, flush=True)


def main():
    """Let both take turns and print images/s, peak memory and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'])
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--steps', type=int, default=5, help='timed steps of each')
    parser.add_argument('--warmup', type=int, default=2)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast for both')
    parser.add_argument('--compile', action='store_true', help='torch.compile ours')
    parser.add_argument('--work', choices=['ours', 'peer'], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        return work(args)
    workers = {name: subprocess.Popen(
        [sys.executable, __file__, *sys.argv[1:], '--work', name], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for name in ('ours', 'peer')}
    parameters = {name: int(worker.stdout.readline()) for name, worker in workers.items()}
    seconds = {name: [] for name in workers}
    peak = {}
    for step in range(args.warmup + args.steps):
        for name, worker in workers.items():
            print(file=worker.stdin, flush=True)
            took, memory = map(float, worker.stdout.readline().split())
            peak[name] = memory / 2**30
            if step >= args.warmup:
                seconds[name].append(took)
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    speed = {name: args.batch_size / median(times) for name, times in seconds.items()}
    print(f'torch {torch.__version__}, {args.device}, {args.threads} threads, batch {args.batch_size}, '
          f'{"bfloat16" if args.amp else "float32"}, median of {args.steps} steps')
    for name, label in (('ours', 'cae_mm'), ('peer', 'mmpretrain CAE')):
        print(f'{label:15s} {parameters[name] / 1e6:7.2f} M trained parameters  '
              f'{speed[name]:7.2f} images/s  peak {peak[name]:5.2f} GiB')
    print(f'ratio           {speed["ours"] / speed["peer"]:.2f} x images/s, '
          f'{peak["ours"] / peak["peer"]:.2f} x memory')


if __name__ == '__main__':
    main()
