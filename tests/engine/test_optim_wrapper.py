"""Autocast, clipping and accumulation."""
import pytest
import torch

from cae_mm.engine import AutocastOptimWrapper


def make(**kwargs):
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2)
    return layer, AutocastOptimWrapper(torch.optim.SGD(layer.parameters(), lr=0.1), **kwargs)


@pytest.mark.parametrize('amp, dtype', [(None, torch.float32), (False, torch.float32),
                                        (True, torch.bfloat16)])
def test_precision_on_cpu(amp, dtype):
    layer, wrapper = make(amp=amp)
    with wrapper.optim_context(layer):
        assert layer(torch.ones(1, 3)).dtype == dtype


def test_float16_is_left_to_mmengine():
    with pytest.raises(ValueError, match='float16.*AmpOptimWrapper'):
        make(dtype='float16')


def test_clips_and_keeps_the_norm():
    layer, wrapper = make(clip_grad=dict(max_norm=3.))
    before = layer.weight.detach().clone()
    wrapper.update_params(100 * layer(torch.ones(1, 3)).sum())
    # 100 for each of 6 weights and 2 biases.
    assert wrapper.last_grad_norm == pytest.approx(100 * 8**0.5)
    torch.testing.assert_close(before - layer.weight, torch.full((2, 3), 0.1 * 3 / 8**0.5))


def test_two_halves_are_one_batch():
    x = torch.randn(4, 3)
    layer, wrapper = make()
    wrapper.update_params(layer(x).square().mean())
    halves, accumulating = make(accumulative_counts=2)
    start = halves.weight.detach().clone()
    for half in x.chunk(2):
        torch.testing.assert_close(halves.weight, start)
        with accumulating.optim_context(halves):
            loss = halves(half).square().mean()
        accumulating.update_params(loss)
    torch.testing.assert_close(halves.weight, layer.weight)
