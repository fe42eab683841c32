"""What a training will take: memory, hours, cores for the loader and disk, before it runs."""
import inspect
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path

from mmengine.config import Config
from mmpretrain.registry import MODELS

from cae_mm.benchmark.step import Step, draw_samples, trace_step
from cae_mm.datasets.annotations import leaf_datasets
from cae_mm.datasets.reproducible import build_images
from cae_mm.engine.monitor import peak_flops

SIZES = 16, 24, 40, 80, 141  # of GPUs, in GiB
# The rest is for CUDA, its libraries and NCCL, and between the blocks of the allocator: assumed.
USABLE = 0.9
# Of the data sets that the configs name, for training.
IMAGES = {'data/imagenet': 1281167, 'data/coco': 117266, 'data/ade/ADEChallengeData2016': 20210}
SAMPLES = 16


@dataclass
class Estimate:
    """Of a training on so many GPUs of one kind; ``picture``: (width, height) of its images, in pixels."""
    cfg: Config
    gpus: int
    picture: tuple[int, int] = (640, 480)

    def __post_init__(self):
        self.batch = self.cfg.train_dataloader.batch_size
        samples, self.seconds = draw_samples(self.cfg, SAMPLES, self.picture)
        # Views of pre-training, which are in a dict, have one size.
        samples.sort(key=lambda sample: getattr(sample['inputs'], 'nbytes', 0))
        self.usual, self.largest = samples[SAMPLES // 2], samples[-1]
        self.trace = cache(partial(trace_step, self.cfg, self.largest, amp=True))

    @cached_property
    def step(self) -> Step:
        """With the config's batch, of the largest images."""
        return self.trace(self.batch)

    @cached_property
    def shared(self) -> Step:
        """Of one of the processes that share the model out, with a group that sends nothing."""
        return self.trace(self.batch, ranks=self.gpus)

    @cached_property
    def operations(self) -> Step:
        """As many as an image of the usual size takes."""
        return trace_step(self.cfg, self.usual, max(2, min(self.batch, 8)), amp=True)

    @cached_property
    def can_checkpoint(self) -> bool:
        """Whether the backbone can compute again what it would keep."""
        kind = self.cfg.model.get('backbone', {}).get('type')
        return kind is not None and 'with_cp' in inspect.signature(MODELS.get(kind)).parameters

    def batches(self, sharded: bool, checkpointing: bool | None) -> list[int]:
        """The largest batch of a GPU that fits each of ``SIZES``; 0: none does.

        A line through two steps in which activations outweigh the rest, and what the optimizer needs.
        """
        own = checkpointing is None or checkpointing == self.cfg.model.backbone.get('with_cp', False)
        trace = self.trace if own else partial(self.trace, checkpointing=checkpointing)
        batch = max(2, self.batch)
        while (low := trace(batch)).activations < 3 * low.weights:
            batch *= 2
        low, high = (on_gpu(step, self.gpus, sharded) for step in (low, trace(2 * batch)))
        slope = (high - low) / batch
        fixed = low - slope * batch
        least = max(fixed + slope, at_update(self.step, self.gpus, sharded))
        usable = [USABLE * size * 2**30 for size in SIZES]
        return [int((memory - fixed) / slope) if memory >= least else 0 for memory in usable]

    @cached_property
    def images(self) -> int:
        """Of the training, repeated ones too; a ValueError for epochs of images that are not here."""
        loop = self.cfg.train_cfg
        if 'max_iters' in loop:
            return loop.max_iters * self.batch * self.gpus
        root = next(leaf_datasets(self.cfg.train_dataloader.dataset)).data_root
        if Path(root).exists():
            return loop.max_epochs * len(build_images(self.cfg.train_dataloader.dataset))
        if root not in IMAGES:
            raise ValueError(f'{root} is not here: say with --images how many there are for training')
        return loop.max_epochs * IMAGES[root]

    @property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint, which holds no tokenizer beside its pupil."""
        tokenizer = 4 * self.step.parameters.get('target_generator', 0)
        return self.step.weights + self.step.fixed + self.step.optimizer - tokenizer

    @property
    def checkpoints(self) -> int:
        """How many there are at once."""
        hook, loop = self.cfg.default_hooks.checkpoint, self.cfg.train_cfg
        kept = hook.get('max_keep_ckpts', -1)
        length = loop.get('max_epochs') or loop.max_iters
        return (kept if kept > 0 else length // hook.interval) + 1


def on_gpu(step: Step, gpus: int, sharded: bool) -> int:
    """Bytes at the peak of a step in one of ``gpus`` processes.

    With DDP, its buckets hold the gradients once more. With FSDP, weights, gradients and optimizer of
    float32 are in as many parts; in bfloat16 there are two blocks and what is in no block, with their
    gradients, which are summed in float32, and not the copies of all weights that autocast keeps.
    """
    if not sharded:
        return step.peak + step.weights * (gpus > 1)
    states = step.weights + step.gradients + step.optimizer
    whole = 2.5 * step.block + 2 * step.outside
    return int(step.peak - states * (1 - 1 / gpus) - step.weights / 2 + whole)


def at_update(step: Step, gpus: int, sharded: bool) -> int:
    """Bytes when the optimizer steps, whatever the batch."""
    states = 2 * step.weights + step.optimizer
    return step.fixed + (states // gpus if sharded else states + step.weights * (gpus > 1))


def parse_device(name: str) -> tuple[float, int]:
    """Peak in operations per second, and GiB of memory, of a GPU such as ``h100-80g``, or a ValueError."""
    model, _, memory = name.rpartition('-')
    peak = peak_flops(model.replace('-', ' ').upper().replace('PCIE', 'PCIe'))
    if peak is None or not memory.lower().removesuffix('g').isdecimal():
        raise ValueError(f'{name} is no device that is known: write a name and its memory, as in h100-80g, '
                         'h200-141g, a100-40g, l40s-48g, rtx-4090-24g')
    return peak, int(memory[:-1])
