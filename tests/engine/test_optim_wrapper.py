"""Autocast, clipping and accumulation."""
import pytest
import torch

from cae_mm.engine import AutocastOptimWrapper
from cae_mm.engine.optim_wrapper import to_float32


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


def test_parts_give_float32_to_what_follows():
    neck, head = torch.nn.Linear(3, 2), torch.nn.Linear(2, 2)
    model = torch.nn.Sequential()
    model.neck, model.head = neck, head
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    with AutocastOptimWrapper(sgd, amp=True, float32_outputs=['neck']).optim_context(model):
        maps = neck(torch.ones(1, 3))
        assert maps.dtype == torch.float32 and head(maps).dtype == torch.bfloat16
    with torch.autocast('cpu', torch.bfloat16):
        assert neck(torch.ones(1, 3)).dtype == torch.bfloat16  # the hook is gone
    maps = [torch.ones(1).bfloat16()], torch.ones(1).bfloat16()
    ([first], second) = to_float32(None, None, maps)
    assert first.dtype == second.dtype == torch.float32
    wrong = AutocastOptimWrapper(sgd, amp=True, float32_outputs=['rpn_head'])
    with pytest.raises(ValueError, match='rpn_head.*Sequential has no rpn_head, but neck, head'):
        wrong.optim_context(model).__enter__()


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
