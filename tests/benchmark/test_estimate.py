"""What is said of a training before it runs."""
from pathlib import Path

import pytest
from mmengine.config import Config

from cae_mm.benchmark.estimate import SIZES, USABLE, Estimate, on_gpu, parse_device
from cae_mm.benchmark.step import trace_step

CONFIGS = Path(__file__).parents[2] / 'configs'
TRAININGS = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob('*.py')
                   if path.parts[len(CONFIGS.parts)] not in ('_base_', 'benchmark')
                   and not path.stem.endswith('_ms'))


def test_devices():
    assert parse_device('h100-80g') == (989e12, 80)
    assert parse_device('RTX-4090-24G') == (165.2e12, 24)
    assert parse_device('l40s-48g')[0] != parse_device('l40-48g')[0]
    for name in ('h100', 'gtx-80g', '80g', 'h100-bigg'):
        with pytest.raises(ValueError, match=f'{name} is no device that is known'):
            parse_device(name)


def test_the_largest_batch_fits_and_the_next_does_not():
    estimate = Estimate(Config.fromfile(CONFIGS / 'pretrain/cae_vitb_300e.py'), gpus=8)
    assert estimate.images == 300 * 1281167
    plain, saved = (estimate.batches(sharded=False, checkpointing=flag) for flag in (False, True))
    sharded = estimate.batches(sharded=True, checkpointing=False)
    assert sorted(plain) == plain and plain[0] > 100
    assert all(a < b for a, b in zip(plain, saved, strict=True))
    assert all(a < b for a, b in zip(plain, sharded, strict=True))
    for batch, fits in ((plain[2], True), (1.03 * plain[2], False)):
        peak = on_gpu(trace_step(estimate.cfg, estimate.largest, int(batch), True, False), 8, False)
        assert (peak <= USABLE * SIZES[2] * 2**30) is fits
    # One of 0.6 GB of weights, two of moments; the file has no tokenizer.
    assert estimate.checkpoint / 4 / 3 == pytest.approx(148.7e6, rel=0.01)
    assert estimate.checkpoints == 4
    assert estimate.trace.cache_info().misses == 4  # two batches, with and without checkpointing


def test_what_cannot_be_known_is_asked_for():
    estimate = Estimate(Config.fromfile(CONFIGS / 'pretrain/cae_vitt_eurosat.py'), gpus=1)
    with pytest.raises(ValueError, match='data/eurosat is not here: say with --images'):
        estimate.images  # noqa: B018


@pytest.mark.parametrize('path', [
    pytest.param(path, marks=[pytest.mark.slow] * (not path.endswith(('_demo.py', 'beit_vitt_eurosat.py'))))
    for path in TRAININGS])
def test_every_config(path):
    estimate = Estimate(Config.fromfile(CONFIGS / path), gpus=8)
    step, usual = estimate.step, estimate.operations
    assert step.peak > step.weights + step.optimizer > 0 and step.activations > 0
    assert usual.operations > sum(usual.forward.values()) > 0 and estimate.seconds > 0
    assert estimate.batches(False, None)[-1] > 0 and estimate.checkpoint > step.weights
