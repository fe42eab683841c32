"""A training step on shapes alone, without numbers: its memory and operations, before there is a GPU."""
import copy
import inspect
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import FUNCTIONS, init_default_scope
from mmengine.structures import BaseDataElement
from mmpretrain.registry import MODELS
from PIL import Image
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed import destroy_process_group, init_process_group
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from torchvision.ops import roi_align

from cae_mm.benchmark.cost import on_meta
from cae_mm.benchmark.memory import Memory, bytes_of
from cae_mm.datasets.annotations import leaf_datasets
from cae_mm.engine.keys import dicts
from cae_mm.engine.sharding import ShardedModel
from cae_mm.models.device_views import views_on_device
from cae_mm.positions import sincos_positions

LIMIT = 'torch._subclasses.fake_tensor.CONSTANT_NUMEL_LIMIT'  # numbers of a tensor that can be known


@dataclass
class Step:
    """Of one training step of a process: bytes, and floating-point operations (a multiply-add is two)."""
    parameters: dict[str, int]  # of each part of the model
    # Operations of a forward pass of one image, in each part; cross entropy computes gradients along.
    forward: dict[str, float]
    operations: float  # of the whole step, for one image
    weights: int  # bytes; those that are trained, and with the rest, frozen ones and buffers
    fixed: int
    optimizer: int
    peak: int  # all that is there at once, the batch as well
    gradients: int  # of the peak: those that exist at that time
    block: int  # trained bytes of the largest one of a list of blocks, and those outside of such lists
    outside: int
    sent: float  # bytes, by each process of several that share the model, in rings; and by what collectives
    collectives: dict[str, int]

    @property
    def activations(self) -> int:
        """What is neither weights nor gradients nor optimizer at the peak."""
        return self.peak - self.weights - self.fixed - self.gradients - self.optimizer


def draw_samples(cfg: Config, number: int, size: tuple[int, int] = (640, 480)) -> tuple[list[dict], float]:
    """Run a config's training pipeline on a made-up photograph of (width, height) with one object.

    Returns:
        tuple[list[dict], float]: samples, which differ by the pipeline's random choices, and seconds of a
            core for each, reading included.
    """
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    pipeline = Compose(next(leaf_datasets(cfg.train_dataloader.dataset)).pipeline)
    (width, height), rng, samples, tries = size, np.random.default_rng(0), [], 0
    left, top, right, bottom = box = [width / 4, height / 4, width / 2, height / 2]
    polygon = [left, top, right, top, right, bottom, left, bottom]
    with tempfile.TemporaryDirectory() as folder:
        picture, labels = f'{folder}/picture.jpg', f'{folder}/labels.png'
        # Noise of 1/16 of the size, enlarged and roughened, is compressed about as photographs are.
        coarse = Image.fromarray(rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8))
        pixels = np.asarray(coarse.resize(size)) + rng.normal(0, 8, (height, width, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(picture, quality=90)
        Image.fromarray(np.ones((height, width), np.uint8)).save(labels)
        start = time.process_time()
        while len(samples) < number:
            thing = dict(bbox=box, bbox_label=0, ignore_flag=0, mask=[polygon])
            sample = pipeline(dict(
                img_path=picture, gt_label=0, img_id=0, width=width, height=height, seg_map_path=labels,
                label_map=None, reduce_zero_label=True, seg_fields=[], instances=[thing]))
            tries += 1
            samples += [sample] * (sample is not None)  # None where a crop has no object
        seconds = (time.process_time() - start) / tries
    for inputs in (sample['inputs'] for sample in samples):
        if isinstance(inputs, dict) and isinstance(inputs['images'], BaseDataElement):  # of decode='device'
            views = views_on_device([inputs['images']], torch.device('cpu'))
            inputs.update({name: view[0].byte() for name, view in views.items()})
    return samples, seconds


def trace_step(cfg: Config, sample: dict, batch: int, amp: bool, checkpointing: bool | None = None,
               ranks: int | None = None) -> Step:
    """Run one training step on tensors that have shapes and no numbers, as on a CPU.

    The second stage of a detector gets as many boxes as its sampler takes at most. Work space of operators
    is not seen, but for that of convolutions, nor what an allocator keeps.

    Args:
        sample (dict): of the training pipeline, of which there are ``batch`` in the step.
        amp (bool): whether in bfloat16, as on GPUs.
        checkpointing (bool, optional): ``with_cp`` of the backbone; the config's by default.
        ranks (int, optional): so many processes share the model out (FSDP), of which this one is traced,
            with a group that sends nothing.
    """
    cfg, sample = copy.deepcopy(cfg), copy.deepcopy(sample)  # whose labels the step replaces
    MessageHub.get_current_instance().update_info('max_iters', 1000)
    settings, wrapper = cfg.model, cfg.optim_wrapper
    if settings.get('data_preprocessor') is None and 'data_preprocessor' in cfg:
        settings.data_preprocessor = cfg.data_preprocessor
    for part in dicts(settings.get('target_generator')):
        part.pop('init_cfg', None)
        if 'type' in part and 'allow_random' in inspect.signature(MODELS.get(part.type)).parameters:
            part.allow_random = True
    if checkpointing is not None:
        settings.backbone.with_cp = checkpointing
    if wrapper.type.endswith('AutocastOptimWrapper'):
        wrapper.amp = amp
    # mmpretrain reads numbers of this while it builds its CAE.
    with mock.patch('torch.linspace', partial(torch.linspace, device='cpu')):
        model = on_meta(settings, cfg.get('default_scope', 'mmpretrain'))
    inputs, labels, resized = sample['inputs'], sample.get('data_samples'), torch.UntypedStorage.resize_
    with (fake_group(ranks), FakeTensorMode(allow_non_fake_inputs=True) as fake, Memory() as memory,
          mock.patch(LIMIT, 2**24),
          mock.patch('cae_mm.models.vit.cached_sincos_positions', sincos_positions),
          mock.patch('cae_mm.models.layers.PLAIN_TOKENS', 0),
          mock.patch.object(torch.UntypedStorage, 'resize_', lambda *args: memory.resize(resized, *args))):
        known = partial(fake.fake_tensor_converter.from_real_tensor, fake, make_constant=True)
        if isinstance(inputs, dict) and 'mask' in inputs:
            inputs['mask'] = known(inputs['mask'])
        elif hasattr(labels, 'mask'):
            labels.mask = known(labels.mask)
        model = revert_sync_batchnorm(model.to_empty(device='cpu')).train()
        model.codes_placed = True  # of a d-VAE: its first step places them
        if hasattr(model, 'roi_head'):
            simplify(model, cfg.model.train_cfg)
        if ranks:
            ShardedModel(model, amp)
        optim = build_optim_wrapper(model, wrapper)
        trained = [parameter for group in optim.optimizer.param_groups for parameter in group['params']]
        for parameter in trained:
            parameter.register_post_accumulate_grad_hook(memory.add_gradient)
        collate = cfg.train_dataloader.get('collate_fn', dict(type='pseudo_collate'))
        data = FUNCTIONS.get(collate['type'])([sample] * batch)
        forward, accumulated = Counter(), wrapper.get('accumulative_counts', 1)
        count_parts(model, memory, forward)
        for _ in range(2):  # in the first one the optimizer makes its state
            memory.kept = memory.gradients if accumulated > 1 else 0
            memory.peak = memory.operations = memory.gradients = memory.sent = 0
            memory.collectives.clear()
            forward.clear()
            optim.initialize_count_status(model, accumulated - 1, 2 * accumulated)
            model.train_step(data, optim)
        state = [value for values in optim.optimizer.state.values() for value in values.values()
                 if torch.is_tensor(value)]
    weights, everything = bytes_of(trained), [*model.parameters(), *model.buffers()]
    ids = {id(parameter) for parameter in trained}
    lists = {name: part for name, part in model.named_modules() if isinstance(part, nn.ModuleList)}
    blocks = [bytes_of(p for p in block.parameters() if id(p) in ids) for name, part in lists.items()
              if not any(name.startswith(f'{other}.') for other in lists) for block in part]
    return Step(
        parameters={name: sum(each.numel() for each in part.parameters())
                    for name, part in model.named_children()},
        forward={name: value / batch for name, value in forward.items()},
        operations=memory.operations / batch, weights=weights, fixed=bytes_of(everything) - weights,
        optimizer=bytes_of(state), peak=memory.peak, gradients=memory.gradients_at_peak,
        block=max(blocks, default=0), outside=weights - sum(blocks), sent=memory.sent,
        collectives=dict(memory.collectives))


@contextmanager
def fake_group(ranks: int | None) -> Iterator[None]:
    """Be the first of so many processes, of which there are no others; None: of none."""
    if not ranks:
        yield
        return
    init_process_group('fake', store=FakeStore(), rank=0, world_size=ranks)
    try:  # what lays out the processes needs numbers
        mesh = init_device_mesh('cpu', (ranks,))
        with mock.patch('cae_mm.engine.sharding.init_device_mesh', return_value=mesh):
            yield
    finally:
        destroy_process_group()


def count_parts(model: nn.Module, memory: Memory, operations: Counter) -> None:
    """Note in ``operations`` what each part of a model does from now on in its forward passes."""
    running = []

    def counted(name, function, *args, **kwargs):
        if running:
            return function(*args, **kwargs)
        running.append(name)
        before = memory.operations
        output = function(*args, **kwargs)
        operations[running.pop()] += memory.operations - before
        return output

    for name, part in model.named_children():
        for method in ('forward', 'encode', 'get_targets', 'decode', 'loss'):
            if hasattr(part, method):
                setattr(part, method, partial(counted, name, getattr(part, method)))


def simplify(detector: nn.Module, train_cfg: dict) -> None:
    """Give a detector losses that need no numbers, of the most boxes that its sampler takes of an image."""
    stages = train_cfg.rcnn if isinstance(train_cfg.rcnn, list) else [train_cfg.rcnn]

    def parts(name):
        part = getattr(detector.roi_head, name)
        return part if isinstance(part, nn.ModuleList) else [part] * len(stages)

    def align(maps, number, size):  # of each map an equal share of the boxes
        boxes = maps[0].new_zeros(-(-number * len(maps[0]) // len(maps)), 5, dtype=torch.float)
        return torch.cat([roi_align(level.float(), boxes, size) for level in maps])

    def second_stage(maps):
        losses, maps = [], maps[:len(parts('bbox_roi_extractor')[0].featmap_strides)]
        for stage, box_head, mask_head in zip(stages, parts('bbox_head'), parts('mask_head'), strict=True):
            number, share = stage.sampler.num, stage.sampler.pos_fraction
            losses += box_head(align(maps, number, 7))
            masks = mask_head(align(maps, int(share * number), 14))[:, 0].float()  # a class's
            losses.append(F.binary_cross_entropy_with_logits(masks, torch.zeros_like(masks)))
        return losses

    def loss(inputs, samples):
        maps = detector.extract_feat(inputs)
        outputs = [level for kind in detector.rpn_head(maps) for level in kind]
        outputs += detector.roi_head.loss(maps)
        return dict(loss=sum(output.float().abs().mean() for output in outputs))

    detector.roi_head.loss, detector.loss = second_stage, loss
