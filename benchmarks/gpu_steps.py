"""Training steps for gpu.py: builders of models with a batch, and what a step takes."""
import gc
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import finetune_step
import mmdet.models  # noqa: F401
import mmpretrain
import mmseg
import mmseg.models  # noqa: F401
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample
from pretrain_step import NUM_MASKED, ROOT, make_batch

import cae_mm  # noqa: F401
from cae_mm.engine.compilation import compile_model
from cae_mm.engine.monitor import device_peak_flops
from cae_mm.models.cae import split_mask
from tests.toy import ARCH, shrink

CONFIGS = ROOT / 'configs'
SIZES = {'ViT-S': ('cae_vits_300e', 2), 'ViT-B': ('cae_vitb_300e', 1), 'ViT-L': ('cae_vitl_1600e', 0.5)}
# mmpretrain's and mmseg's transformers in the size of tests.toy.
TOY = dict(ARCH, feedforward_channels=4 * ARCH['embed_dims'])


def read(path: Path, args) -> Config:
    """A config without checkpoints, shrunk for a toy."""
    cfg = Config.fromfile(path)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    if args.toy:
        shrink(cfg)
    if 'data_preprocessor' in cfg and 'data_preprocessor' not in cfg.model:
        cfg.model.data_preprocessor = cfg.data_preprocessor
    cfg.model.backbone.init_cfg = None
    targets = cfg.model.get('target_generator', {})
    if 'init_cfg' in targets:
        targets.init_cfg = None
        if targets.type == 'DALLETokenizer':
            targets.allow_random = True
    return cfg


def built(cfg: Config, args) -> tuple:
    """The model on its device and its optimizer wrapper."""
    model = MODELS.build(cfg.model)
    model.init_weights()
    model = model.to(args.device).train()
    return model, build_optim_wrapper(model, dict(cfg.optim_wrapper, accumulative_counts=1))


def cae(name: str, args, batch: int) -> tuple:
    """Our model of a pre-training config, its optimizer wrapper and a batch."""
    images, targets, mask = make_batch(batch)
    return *built(read(CONFIGS / f'pretrain/{name}.py', args), args), dict(
        inputs=dict(images=images, target_images=targets, mask=mask))


def mmcae(args, batch: int) -> tuple:
    """mmpretrain's CAE with our number of masked patches."""
    cfg = read(CONFIGS / 'pretrain/peers/mmcae_vitb_300e.py', args)
    cfg.model.neck.mask_tokens_num = NUM_MASKED
    images, targets, mask = make_batch(batch)
    samples = [DataSample() for _ in mask]
    for sample, row in zip(samples, mask, strict=True):
        sample.set_field(row.view(14, 14).long(), 'mask', field_type='metainfo')
    return *built(cfg, args), dict(inputs=[images, targets], data_samples=samples)


def mae(args, batch: int) -> tuple:
    """mmpretrain's MAE."""
    images, _, mask = make_batch(batch)
    return *built(read(CONFIGS / 'pretrain/peers/mae_vitb_300e.py', args), args), dict(
        inputs=images, data_samples=[DataSample() for _ in mask])


def classifier(path: Path, arch: Callable, args, batch: int) -> tuple:
    """A classifier of finetune_step."""
    init_default_scope('mmpretrain')
    args.task, args.arch, args.batch_size = 'finetune', ARCH if args.toy else 'base', batch
    args.amp = args.device == 'cuda'
    model, wrapper, inputs = finetune_step.build(path, arch, args)
    model = model.to(args.device).train()
    return model, build_optim_wrapper(model, wrapper), inputs


def detector(peer: bool, args, batch: int) -> tuple:
    """Mask R-CNN on our encoder, or on mmpretrain's VisionTransformer, without recomputation."""
    cfg, size = read(CONFIGS / 'det/mask_rcnn_cae_vitb_1x_coco.py', args), (800, 1088)
    cfg.model.backbone.with_cp = False
    if args.toy:
        size = (96, 128)
    if peer:
        cfg.model.backbone = dict(
            type='mmpretrain.VisionTransformer', arch=TOY if args.toy else 'b', img_size=size,
            patch_size=16, out_type='featmap', out_indices=cfg.model.backbone.out_indices,
            drop_path_rate=0.2, final_norm=False)
        # One group for all parameters: the fastest there is.
        for key in ('constructor', 'paramwise_cfg'):
            cfg.optim_wrapper.pop(key, None)
    inputs = demo_mm_inputs(batch, (3, *size), num_items=[8] * batch, num_classes=80, with_mask=True)
    return *built(cfg, args), inputs


def segmenter(peer: bool, args, batch: int) -> tuple:
    """UperNet on our encoder, or mmseg's own MAE ViT with the same bias, pyramid and heads."""
    cfg, size = read(CONFIGS / 'seg/upernet_cae_vitb_160k_ade20k.py', args), (512, 512)
    if args.toy:
        size = (128, 128)
    if peer:
        [path] = Path(mmseg.__file__).parent.glob('.mim/configs/mae/*ade20k-512x512.py')
        theirs = Config.fromfile(path)
        if args.toy:
            dims = ARCH['embed_dims']
            theirs.model.backbone.update(ARCH, out_indices=(0, 1, 2, 3))
            theirs.model.neck.embed_dim = dims
            theirs.model.decode_head.update(in_channels=[dims] * 4, channels=dims)
            theirs.model.auxiliary_head.update(in_channels=dims, channels=dims)
        cfg.model = theirs.model
        cfg.model.pretrained = None
        # One group for all parameters: the fastest there is.
        for key in ('constructor', 'paramwise_cfg'):
            cfg.optim_wrapper.pop(key, None)
    cfg.model.backbone.img_size = cfg.model.data_preprocessor.size = size
    labels = torch.randint(0, 150, (batch, 1, *size))
    images = list(torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8))
    samples = [SegDataSample(gt_sem_seg=PixelData(data=each), metainfo=dict(
        img_shape=size, ori_shape=size)) for each in labels]
    return *built(cfg, args), dict(inputs=images, data_samples=samples)


def seconds_of(function: Callable, args, enough: float = 1.) -> float:
    """Median seconds of a call among three rounds; on a GPU the host runs ahead within a round."""
    def timed(calls):
        start = time.perf_counter()
        for _ in range(calls):
            function()
        if args.device == 'cuda':
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / calls

    if args.toy:
        return timed(1)
    timed(2)
    calls = max(2, round(enough / timed(2)))
    return median(timed(calls) for _ in range(3))


def mode_of(compiled: bool = False, graphs: bool = False, **_) -> str:
    """How a row's step runs."""
    return 'compiled' + ', CUDA graphs' * graphs if compiled else 'eager'


def measure(name: str, build: Callable, args, batch: int, compiled: bool = False, graphs: bool = False,
            detailed: bool = False) -> dict:
    """A row: the speed and memory of a contender's step, and the time of its parts alone."""
    gc.collect()
    torch.compiler.reset()
    row = dict(model=name, batch=batch, mode=mode_of(compiled, graphs))
    if args.device == 'cuda':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        model, wrapper, data = build(args, batch)
        if compiled:
            compile_model(model, dict(backend='eager') if args.toy else
                          dict(mode='reduce-overhead') if graphs else True)
        start = time.perf_counter()
        model.train_step(data, wrapper)
        if args.device == 'cuda':
            torch.cuda.synchronize()
        first = time.perf_counter() - start
        row['images/s'] = batch / seconds_of(lambda: model.train_step(data, wrapper), args)
        peak = device_peak_flops() if args.device == 'cuda' else None
        if hasattr(model, 'flops_per_image'):
            row['GFLOP/image'] = model.flops_per_image() / 1e9
            row['MFU'] = row['images/s'] * row['GFLOP/image'] * 1e9 / peak if peak else '-'
        row['GiB'] = torch.cuda.max_memory_allocated() / 2**30 if args.device == 'cuda' else '-'
        row['first step, s'] = first
        if detailed:
            inputs = model.data_preprocessor(data, True)['inputs']
            with wrapper.optim_context(model):
                row.update({f'{part}, ms': 1e3 * seconds_of(function, args, enough=0.2)
                            for part, function in parts(model, inputs, wrapper).items()})
    except Exception as error:  # out of memory, of which the next one may need less
        row['failed'] = f'{type(error).__name__}: {error}'.split('\n')[0][:200]
    return row


def parts(model, inputs: dict, wrapper) -> dict[str, Callable]:
    """What takes each part of our step alone, forward and, where it has one, backward."""
    images, view = inputs['images'], inputs['target_images']
    visible, masked = (index.to(images.device) for index in split_mask(inputs['mask']))
    with torch.no_grad():
        latent, predicted, _, decoded = model.predict_masked(images, visible, masked)
        context = model.neck.project(latent)
        ids = model.target_generator.get_targets(view, masked)

    def both(function, *tensors):
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]

        def call():
            output = function(*leaves)
            output.backward(output.detach())
        return call

    @torch.no_grad()
    def align():
        return model.neck.project(model.backbone.encode(images, masked)[:, 1:])

    return dict(
        encoder=both(lambda: model.backbone.encode(images, visible)), alignment=align,
        regressor=both(lambda context: model.neck(context, visible, masked), context[:, 1:]),
        decoder=both(lambda predicted: model.head.decode(predicted, masked, context), predicted),
        loss=both(lambda decoded: model.head.loss(decoded, ids)[0], decoded),
        tokenizer=lambda: model.target_generator.get_targets(view, masked),
        optimizer=wrapper.step)


def pretraining(args, left: Callable[[], float]) -> Iterator[dict]:
    """The most important rows first; those for which no time is left say so."""
    def ours(size, scale=1., **how):
        name, factor = SIZES[size]
        batch = max(1, int(args.batch_size * factor * scale))
        return f'cae_mm {size}', partial(cae, name), batch, how

    batch = args.batch_size
    plan = [ours('ViT-B', detailed=True), ours('ViT-B', compiled=True),
            ('mmpretrain CAE ViT-B', mmcae, batch, {}), ('mmpretrain MAE ViT-B', mae, batch, {}),
            ours('ViT-L', detailed=True), ours('ViT-L', compiled=True),
            ours('ViT-S', detailed=True), ours('ViT-S', compiled=True),
            ours('ViT-B', compiled=True, graphs=True), ours('ViT-S', compiled=True, graphs=True)]
    for size in ('ViT-B', 'ViT-L', 'ViT-S') if not args.toy else ():
        plan += [ours(size, scale) for scale in (0.25, 0.5, 2)]
    yield from in_time(plan, args, left)


def downstream(args, left: Callable[[], float]) -> Iterator[dict]:
    """Ours, then stock vision transformers of the libraries, in bfloat16 on a GPU."""
    [theirs] = Path(mmpretrain.__file__).parent.glob(f'.mim/configs/{finetune_step.PEERS["finetune"]}')

    def vit(dims, depth, heads, **more):
        return dict(embed_dims=dims, num_layers=depth, num_heads=heads, **more)

    ours = partial(classifier, CONFIGS / 'cls' / finetune_step.OURS['finetune'], vit)
    peer = partial(classifier, theirs, lambda dims, *rest: vit(dims, *rest, feedforward_channels=4 * dims))
    batch, few = (2, 2) if args.toy else (128, 8)
    yield from in_time([
        ('fine-tuning, cae_mm', ours, batch, {}), ('fine-tuning, cae_mm', ours, batch, dict(compiled=True)),
        ('fine-tuning, mmpretrain BEiTViT', peer, batch, {}),
        ('Mask R-CNN, cae_mm', partial(detector, False), few, {}),
        ('Mask R-CNN, mmpretrain VisionTransformer', partial(detector, True), few, {}),
        ('UperNet, cae_mm', partial(segmenter, False), few, {}),
        ('UperNet, mmseg MAE', partial(segmenter, True), few, {})], args, left)


def in_time(plan: list[tuple], args, left: Callable[[], float]) -> Iterator[dict]:
    """Rows of a plan. Nothing begins within the last ten seconds, and no compilation in the last minute."""
    for name, build, batch, how in plan:
        if not args.toy and left() < (60 if how.get('compiled') else 10):
            yield dict(model=name, batch=batch, mode=mode_of(**how), skipped='no time left')
        else:
            yield measure(name, build, args, batch, **how)
