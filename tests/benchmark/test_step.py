"""A step on shapes alone needs the memory and the operations of a real one."""
import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import FUNCTIONS
from mmpretrain.registry import MODELS
from torch.profiler import ProfilerActivity, profile

from cae_mm.benchmark.estimate import on_gpu
from cae_mm.benchmark.step import draw_samples, trace_step
from cae_mm.engine.sharding import ShardedModel

CONFIGS = Path(__file__).parents[2] / 'configs'


def measured_peak(cfg, sample, batch, share=lambda model: model):
    """Most bytes that PyTorch's allocator had given away at once in two real steps, by its own events."""
    cfg = copy.deepcopy(cfg)
    if cfg.model.get('data_preprocessor') is None:
        cfg.model.data_preprocessor = cfg.data_preprocessor
    MessageHub.get_current_instance().update_info('max_iters', 1000)
    collate = FUNCTIONS.get(cfg.train_dataloader.get('collate_fn', dict(type='pseudo_collate'))['type'])
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as events:
        model = share(revert_sync_batchnorm(MODELS.build(cfg.model)).train())
        optim = build_optim_wrapper(model, cfg.optim_wrapper)
        optim.initialize_count_status(model, 0, 1000)
        data = collate([copy.deepcopy(sample) for _ in range(batch)])
        for _ in range(2 * cfg.optim_wrapper.get('accumulative_counts', 1)):
            model.train_step(data, optim)
    now = peak = 0
    events = [event for event in events.profiler.kineto_results.events() if event.name() == '[memory]']
    for _, size in sorted((event.start_ns(), event.nbytes()) for event in events):
        now += size
        peak = max(peak, now)
    return peak


def compare(path, batch, amp=False, accumulated=1, **backbone):
    cfg = Config.fromfile(CONFIGS / path)
    if backbone:
        cfg.model.backbone.update(backbone)
    if cfg.model.get('target_generator', {}).get('type') in ('DALLETokenizer', 'DiscreteVAE'):
        cfg.model.target_generator.update(init_cfg=None, allow_random=True)
    cfg.optim_wrapper.update(amp=amp, accumulative_counts=accumulated)
    sample = draw_samples(cfg, 1, (128, 128))[0][0]
    traced = trace_step(cfg, sample, batch, amp).peak
    assert traced == pytest.approx(measured_peak(cfg, sample, batch), rel=0.1)


@pytest.mark.parametrize('path, batch, settings', [
    ('pretrain/cae_vitt_demo.py', 16, {}),
    ('pretrain/cae_vitt_demo.py', 32, dict(with_cp=True, amp=True)),
    ('tokenizer/dvae_demo.py', 8, {}),
    ('cls/finetune_cae_vitt_demo.py', 16, dict(accumulated=2)),
    ('seg/upernet_cae_vitt_demo.py', 2, {}),
])
def test_memory_of_small_steps(path, batch, settings):
    compare(path, batch, **settings)


@pytest.mark.slow
@pytest.mark.parametrize('path, batch, settings', [
    ('pretrain/cae_vits_300e.py', 4, {}),
    ('pretrain/cae_vitb_300e.py', 4, {}),
    ('pretrain/cae_vitb_300e.py', 8, dict(with_cp=True)),
    ('cls/finetune_cae_vits_100e.py', 4, {}),
    ('cls/linear_cae_vits_90e.py', 8, {}),
])
def test_memory_of_large_steps(path, batch, settings):
    compare(path, batch, **settings)


def whole_cae():
    cfg = Config.fromfile(CONFIGS / 'pretrain/ablation/cae_vitt_eurosat_whole.py')
    cfg.model.target_generator.update(init_cfg=None, allow_random=True)
    return cfg, draw_samples(cfg, 1, (128, 128))[0][0]


def test_operations_are_those_that_the_model_counts():
    cfg, sample = whole_cae()
    step = trace_step(cfg, sample, 2, amp=False)
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    assert step.operations == pytest.approx(model.flops_per_image(), rel=0.03)
    assert step.forward.keys() >= {'backbone', 'neck', 'head', 'target_generator'}
    assert 3 * sum(step.forward.values()) > step.operations > sum(step.forward.values())
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    assert step.weights == 4 * sum(trained) and sum(step.parameters.values()) > sum(trained)
    assert step.optimizer - 2 * step.weights == 4 * len(trained)  # two moments, and a count for each tensor


def test_memory_of_one_of_two_processes(on_ranks):
    cfg, sample = whole_cae()
    measured = on_ranks(2, lambda: measured_peak(cfg, sample, 16, ShardedModel))
    whole, traced = trace_step(cfg, sample, 16, False), trace_step(cfg, sample, 16, False, ranks=2)
    assert [traced.peak] * 2 == pytest.approx(measured, rel=0.1)
    assert traced.weights == pytest.approx(whole.weights / 2, rel=0.01) and not whole.sent
    assert on_gpu(whole, 2, True) == pytest.approx(traced.peak, rel=0.1)


def test_what_one_of_many_processes_sends():
    cfg, sample = whole_cae()
    step = trace_step(cfg, sample, 2, amp=False, ranks=64)
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    units = {name: [sum(p.numel() for p in block.parameters()) for block in part.children()]
             for name, part in model.named_modules() if name.endswith(('.blocks', '.layers'))
             and not name.startswith('target_generator')}
    encoder = next(name for name in units if name.startswith('backbone'))
    # The encoder runs twice, and all once more backwards, at whose end PyTorch fetches a block in vain.
    times = {name: 3 if name == encoder else 2 for name in units}
    blocks, all_of_it = sum(map(sum, units.values())), sum(
        p.numel() for p in model.parameters() if p.requires_grad)
    assert step.collectives == dict(
        allgather_base=3 + sum(times[name] * len(unit) for name, unit in units.items()),
        reduce_scatter_base=1 + sum(map(len, units.values())), all_reduce=1)
    gathered = 2 * (all_of_it - blocks) + sum(times[name] * sum(unit) for name, unit in units.items())
    assert step.sent == pytest.approx(4 * (gathered + all_of_it), rel=0.1)  # with padding


def test_nothing_of_a_trace_is_left_in_what_it_was_given():
    cfg = Config.fromfile(CONFIGS / 'cls/finetune_cae_vitt_demo.py')
    sample = draw_samples(cfg, 1)[0][0]
    before = copy.deepcopy(cfg)
    trace_step(cfg, sample, 4, amp=True)
    assert cfg.to_dict() == before.to_dict() and type(sample['data_samples'].gt_label) is torch.Tensor
    assert 'gt_score' not in sample['data_samples']


def test_views_that_the_device_makes_have_the_shapes_of_the_loader():
    cfg = Config.fromfile(CONFIGS / 'pretrain/cae_vitb_300e.py')
    expected, found = [], []
    for decode, samples in (('whole', expected), ('device', found)):
        cfg.train_dataloader.dataset.dataset.pipeline[0].decode = decode
        samples.append({name: (view.shape, view.dtype)
                        for name, view in draw_samples(cfg, 1)[0][0]['inputs'].items()})
    assert found == expected and len(found[0]) == 3
