"""Trainings for gpu.py: against the CPU, killed and resumed, with one rank, and what feeds them."""
import itertools
import multiprocessing
import os
import signal
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from gpu_steps import CONFIGS, built, cae, seconds_of
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from torch.nn.parallel import DistributedDataParallel

from cae_mm.checkpoint.files import read_checkpoint
from cae_mm.engine import launch
from cae_mm.engine.compilation import compile_model
from cae_mm.engine.loops import seed_iteration
from tests.toy import shrink


def small(args, work_dir: Path | None = None) -> Config:
    """A small CAE of pixels, without drop path, whose random numbers differ between devices."""
    cfg = launch.load_config(Namespace(
        config=str(CONFIGS / 'pretrain/cae_vitb_300e_pixels.py'), data_root=str(args.images.parent),
        launcher='none', work_dir=str(work_dir) if work_dir else None, cfg_options=None))
    width = dict(embed_dims=192, num_heads=3, depth=2)
    cfg.model.backbone.update(arch='deit-tiny', drop_path_rate=0.)
    cfg.model.neck.update(width, drop_path_rate=0.)
    cfg.model.head.update(width, drop_path_rate=0.)
    cfg.model.data_preprocessor = cfg.data_preprocessor
    cfg.optim_wrapper.optimizer.lr = 5e-4
    if args.toy:
        shrink(cfg)
    loader = cfg.train_dataloader
    loader.update(batch_size=4 if args.toy else 32, num_workers=0 if args.toy else min(8, os.cpu_count()))
    if not loader.num_workers:
        loader.update(persistent_workers=False, prefetch_factor=None)
    init_default_scope('mmpretrain')
    return cfg


def losses_of(cfg: Config, batches, args, device: str, amp: bool, compiled: bool = False,
              seconds: float = 0) -> tuple[list[float], int]:
    """Losses of steps on these batches, which repeat until as many seconds have gone, and their number."""
    torch.manual_seed(0)
    cfg.optim_wrapper.amp = amp
    model, wrapper = built(cfg, Namespace(**{**vars(args), 'device': device}))
    if compiled:
        compile_model(model, dict(backend='eager') if args.toy else True)
    losses, start = [], time.time()
    for batch in itertools.cycle(batches) if seconds else batches:
        seed_iteration(0, len(losses))
        losses.append(sum(loss.detach() for name, loss in model.train_step(batch, wrapper).items()
                          if name.startswith('loss_')))
        if seconds and len(losses) % 20 == 0 and time.time() - start > seconds:
            break
    return torch.stack(losses).tolist(), len(losses)


def training(args, left: Callable[[], float]) -> Iterator[dict]:
    """Twenty steps on the CPU and on the device, both in float32, then a minute in bfloat16, compiled.

    mmengine takes a GPU wherever there is one; the steps here are made without its runner.
    """
    cfg, steps = small(args), 4 if args.toy else 20
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    batches = list(itertools.islice(itertools.chain.from_iterable(itertools.repeat(loader)), steps))
    size = cfg.train_dataloader.batch_size
    expected, _ = losses_of(cfg, batches, args, 'cpu', amp=False)
    yield dict(run='CPU, float32', steps=steps, batch=size, first=expected[0], last=expected[-1])
    minute = 0.1 if args.toy else min(60, left() - 15)
    for name, amp, compiled, seconds, bound in (('float32', False, False, 0, 1e-3),
                                                ('bfloat16, compiled', True, True, minute, None)):
        start = time.time()
        found, number = losses_of(cfg, batches, args, args.device, amp, compiled, seconds)
        apart = max(abs(a / b - 1) for a, b in zip(found, expected, strict=False))
        row = dict(run=f'{args.device}, {name}', steps=number, batch=size, first=found[0], last=found[-1],
                   **{'largest relative difference in these steps': apart,
                      'images/s, compilation included': number * size / (time.time() - start)})
        if bound and not apart < bound:
            row['failed'] = f'more than {bound}'
        yield row


class Kill(Hook):
    """End this process by SIGKILL before an iteration."""

    def __init__(self, iteration: int):
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)


def run(args, work_dir: Path, kill_at: int | None = None, resume: bool = False) -> None:
    """A training of four epochs by the runner that tools/train.py has."""
    cfg = small(args, work_dir)
    cfg.train_cfg.max_epochs, cfg.param_scheduler.warmup_epochs, cfg.compile_model = 4, 1, False
    cfg.default_hooks.checkpoint.interval, cfg.log_level = 1, 'ERROR'
    cfg.resume = 'auto' if resume else False
    cfg.experiment_name = f'{work_dir.name}_{resume}'
    launch.start_processes(cfg)
    runner = launch.build_runner(cfg, 'train')
    if kill_at:
        runner.register_hook(Kill(kill_at))
    runner.train()


def resume(args, left: Callable[[], float]) -> Iterator[dict]:
    """Weights after four epochs, of one run and of one that was killed in the middle of the third."""
    context, folder = multiprocessing.get_context(args.start), args.images.parent
    per_epoch = len(list(args.images.iterdir())) // (4 if args.toy else 32)
    statuses = []
    for work_dir, how in (('whole', {}), ('killed', dict(kill_at=2 * per_epoch + per_epoch // 2)),
                          ('killed', dict(resume=True))):
        process = context.Process(target=run, args=(args, folder / work_dir), kwargs=how)
        process.start()
        process.join()
        statuses.append(process.exitcode)
    row = dict(steps=4 * per_epoch, **{'exit statuses': ' '.join(map(str, statuses))})
    if statuses != [0, -signal.SIGKILL, 0]:
        yield dict(row, failed='expected 0 -9 0')
        return
    whole, killed = (read_checkpoint(folder / name / 'epoch_4.pth')['state_dict']
                     for name in ('whole', 'killed'))
    apart = max(float((whole[key].double() - killed[key].double()).abs().max()) for key in whole)
    yield dict(row, **{'largest difference of a weight': apart})


def ddp(args, left: Callable[[], float]) -> Iterator[dict]:
    """The step bare and wrapped, over NCCL on a GPU and gloo on the CPU; compiled where time is left."""
    torch.distributed.init_process_group(
        'nccl' if args.device == 'cuda' else 'gloo', rank=0, world_size=1,
        init_method=f'file://{args.images.parent}/rendezvous')
    batch = 2 if args.toy else args.batch_size // 2
    for wrapped in (False, True):
        torch.manual_seed(0)
        model, wrapper, data = cae('cae_vits_300e', args, batch)
        data = model.data_preprocessor(data, True)
        if wrapped:
            model = DistributedDataParallel(model, gradient_as_bucket_view=True)

        def step(model=model, wrapper=wrapper, data=data):
            with wrapper.optim_context(model):
                losses = model(**data, mode='loss')
            loss = sum(value for name, value in losses.items() if name.startswith('loss'))
            wrapper.update_params(loss)
            return loss

        seed_iteration(0, 0)
        loss = step().item()
        yield dict(model='cae_mm ViT-S, eager', wrapped=str(wrapped), batch=batch, loss=loss,
                   **{'images/s': batch / seconds_of(step, args)})


def loader(args, left: Callable[[], float]) -> Iterator[dict]:
    """Images per second of the pre-training pipeline up to the model, with a worker for each core."""
    cfg = launch.load_config(Namespace(
        config=str(CONFIGS / 'pretrain/cae_vitb_300e.py'), data_root=str(args.images.parent),
        launcher='none', cfg_options=None))
    for image, copy in itertools.product(sorted(args.images.iterdir()), range(0 if args.toy else 40)):
        os.link(image, args.images / f'{copy}_{image.name}')
    workers, seconds = (1, 0.1) if args.toy else (os.cpu_count(), min(8, (left() - 8) / 2))
    cfg.train_dataloader.update(num_workers=workers, batch_size=4 if args.toy else 64)
    init_default_scope('mmpretrain')
    preprocess = MODELS.build(cfg.data_preprocessor).to(args.device)
    for decode in ('whole', 'device'):
        cfg.train_dataloader.dataset.dataset.pipeline[0].decode = decode
        batches = iter(itertools.chain.from_iterable(itertools.repeat(
            Runner.build_dataloader(cfg.train_dataloader, seed=0))))
        for _ in range(1 if args.toy else 2 * workers):  # what was read ahead while the workers started
            preprocess(next(batches))
        start, images = time.time(), 0
        while time.time() - start < seconds:
            images += len(preprocess(next(batches))['inputs']['images'])
        if args.device == 'cuda':
            torch.cuda.synchronize()
        rate = images / (time.time() - start)
        yield dict(decode=decode, workers=workers,
                   **{'images/s': rate, 'images/s and worker': rate / workers})
