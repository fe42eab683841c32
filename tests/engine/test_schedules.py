"""The learning-rate schedule under scales, accumulation and interruption."""
import copy

import pytest
import torch
from mmengine.optim import OptimWrapper

from cae_mm.engine import WarmupCosineLR


def make(scales=(1.,), lr=1., accumulative_counts=1, **kwargs):
    groups = [dict(params=[torch.nn.Parameter(torch.zeros(1))], lr=lr * scale, lr_scale=scale)
              for scale in scales]
    wrapper = OptimWrapper(torch.optim.SGD(groups, lr=lr), accumulative_counts)
    wrapper.base_param_settings = None
    return wrapper, WarmupCosineLR(wrapper, by_epoch=False, **kwargs)


def rates(wrapper, scheduler, steps):
    seen = []
    for _ in range(steps):
        seen.append([group['lr'] for group in wrapper.param_groups])
        wrapper.step()
        scheduler.step()
    return seen


def test_ends_of_warmup_and_of_cosine():
    seen = [value for value, in rates(*make(warmup_iters=5, min_lr=0.1, end=15), 15)]
    assert seen[:6] == [0., 0.25, 0.5, 0.75, 1., 1.]
    assert seen[10] == pytest.approx(0.55)
    assert 0.1 < seen[-1] < 0.13


def test_warmup_without_its_endpoint():
    seen = [value for value, in rates(*make(warmup_iters=4, end=12, endpoint=False), 6)]
    assert seen[:5] == [0., 0.25, 0.5, 0.75, 1.]
    assert seen[5] < 1.


def test_scaled_groups_follow_the_whole_schedule():
    seen = rates(*make(scales=(1., 0.25), warmup_iters=3, min_lr=0.1, end=9), 9)
    assert all(low == pytest.approx(0.25 * full) for full, low in seen)


def test_accumulation_counts_updates():
    single = rates(*make(warmup_iters=3, min_lr=0.1, end=9), 9)
    double = rates(*make(warmup_iters=6, min_lr=0.1, end=18, accumulative_counts=2), 18)
    assert double[1::2] == single


def test_resumes_at_the_next_step():
    whole = rates(*make(warmup_iters=4, min_lr=0.1, end=10), 10)
    wrapper, scheduler = make(warmup_iters=4, min_lr=0.1, end=10)
    rates(wrapper, scheduler, 6)
    state = copy.deepcopy((wrapper.state_dict(), scheduler.state_dict()))
    wrapper, scheduler = make(warmup_iters=4, min_lr=0.1, end=10)
    wrapper.load_state_dict(state[0])
    scheduler.load_state_dict(state[1])
    assert rates(wrapper, scheduler, 4) == whole[6:]


@pytest.mark.parametrize('kwargs', [
    dict(end=9), dict(warmup_epochs=1, end=9), dict(warmup_iters=1)])
def test_refuses_what_it_cannot_place(kwargs):
    with pytest.raises(ValueError, match='warmup_iters|end'):
        make(**kwargs)
