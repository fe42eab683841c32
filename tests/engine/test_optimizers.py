"""LARS by its rule, written out."""
import copy

import pytest
import torch
from torch import nn

from cae_mm.engine import LayerDecayOptimWrapperConstructor, TimmLars


def steps(optimizer, parameters, rates, seed=1):
    """Step at each rate; the gradients are those of the seed."""
    generator = torch.Generator().manual_seed(seed)
    for rate in rates:
        for group in optimizer.param_groups:
            group['lr'] = rate
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((5, 7), (5,))]


@pytest.mark.parametrize('foreach', [False, True])
def test_changing_rate(foreach):
    """The momentum collects scaled gradients without their rates."""
    ours, rates = parameters(), (0.5, 2., 0.1, 0.)
    steps(TimmLars(ours, lr=1., momentum=0.9, foreach=foreach), ours, rates)

    expected = [parameter.detach().clone() for parameter in parameters()]
    momentum = [torch.zeros_like(parameter) for parameter in expected]
    generator = torch.Generator().manual_seed(1)
    for rate in rates:
        for parameter, buffer in zip(expected, momentum, strict=True):
            gradient = torch.randn(parameter.shape, generator=generator)
            ratio = 0.001 * parameter.norm() / gradient.norm() if parameter.ndim > 1 else 1.
            buffer.mul_(0.9).add_(ratio * gradient)
            parameter -= rate * buffer
    for parameter, value in zip(ours, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value)


def test_groups_of_any_constructor():
    """Vectors neither adapt nor decay, wherever a constructor put them; nothing is lost."""
    model = nn.Sequential(nn.Linear(7, 5), nn.LayerNorm(5), nn.Linear(5, 3, bias=False))
    optimizer_cfg = dict(type='mmpretrain.TimmLars', lr=1., momentum=0.9, weight_decay=0.1)
    wrapper = LayerDecayOptimWrapperConstructor(dict(optimizer=optimizer_cfg))(model)
    names = {name: (group['always_adapt'], group['weight_decay'])
             for group in wrapper.optimizer.param_groups
             for name, _ in zip(group['param_names'], group['params'], strict=True)}
    assert names == {'0.weight': (True, 0.1), '2.weight': (True, 0.1), '0.bias': (False, 0.),
                     '1.weight': (False, 0.), '1.bias': (False, 0.)}
    plain = TimmLars(model.parameters(), lr=1., weight_decay=0.1)
    assert [len(group['params']) for group in plain.param_groups] == [2, 3]
    assert [group['weight_decay'] for group in plain.param_groups] == [0.1, 0.]


def test_resumed_state():
    straight, resumed = parameters(), parameters()
    optimizer = TimmLars(straight, lr=1., momentum=0.9)
    steps(optimizer, straight, (0.5, 2.))
    for ours, value in zip(resumed, straight, strict=True):
        ours.data.copy_(value.data)
    other = TimmLars(resumed, lr=1., momentum=0.9)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(optimizer, straight, (0.3,), seed=2)
    steps(other, resumed, (0.3,), seed=2)
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))
