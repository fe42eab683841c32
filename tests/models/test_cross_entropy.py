"""The chunked loss of codes: what PyTorch computes of whole logits, with gradients."""
import pytest
import torch
import torch.nn.functional as F

from cae_mm.models import cross_entropy
from cae_mm.models.cross_entropy import linear_cross_entropy

SIZES = 50, 16, 40  # rows, width, codes


@pytest.fixture
def tensors(monkeypatch):
    """Inputs, weights, biases and codes; seven rows are computed at once, one in the last chunk."""
    monkeypatch.setattr(cross_entropy, 'LOGITS', 7 * SIZES[2] + 1)
    torch.manual_seed(0)
    rows, width, codes = SIZES
    shapes = (rows, width), (codes, width), (codes,)
    return *(torch.randn(shape, requires_grad=True) for shape in shapes), torch.arange(rows) % codes


def whole(x, weight, bias, target):
    logits = F.linear(x, weight, bias)
    return F.cross_entropy(logits.float(), target), (logits.argmax(-1) == target).float().mean()


def outcome(function, x, weight, bias, target):
    loss, right = function(x, weight, bias, target)
    assert loss.dtype == right.dtype == torch.float32 and not right.requires_grad
    # Of a loss that is added to others, with a weight.
    return loss.detach(), right, torch.autograd.grad(3 * loss, (x, weight, bias))


def test_in_float32_it_is_that_of_whole_logits(tensors):
    torch.testing.assert_close(outcome(linear_cross_entropy, *tensors), outcome(whole, *tensors),
                               atol=1e-6, rtol=1e-5)


def test_in_bfloat16_it_is_as_near_to_float32(tensors):
    """As near as whole logits are; the loss itself is not rounded to bfloat16."""
    *_, expected = exact = outcome(whole, *tensors)
    with torch.autocast('cpu', torch.bfloat16):
        found, usual = outcome(linear_cross_entropy, *tensors), outcome(whole, *tensors)
    assert abs(found[0] - usual[0]) < 1e-6 < abs(found[0] - exact[0]) < 0.02
    assert found[0] != found[0].bfloat16() and found[1] == usual[1]
    for ours, theirs, want in zip(found[2], usual[2], expected, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - want).norm() < 1.1 * (theirs - want).norm() < 0.01 * want.norm()


def test_scaled_gradients_in_float16_are_not_rounded_to_zero(monkeypatch):
    """As mmengine's AmpOptimWrapper has them; divided by the number of rows they would be."""
    monkeypatch.setattr(cross_entropy, 'LOGITS', 2**16)
    torch.manual_seed(0)
    tensors = *(torch.randn(shape, requires_grad=True) for shape in ((20_000, 8), (40, 8), (40,))), (
        torch.arange(20_000) % 40)
    expected = torch.autograd.grad(whole(*tensors)[0], tensors[:3])
    with torch.autocast('cpu', torch.float16):
        loss, _ = linear_cross_entropy(*tensors)
    found = torch.autograd.grad(2**16 * loss, tensors[:3])
    for ours, want in zip(found, expected, strict=True):
        assert (ours / 2**16 - want).norm() < 0.002 * want.norm()


def test_no_more_logits_than_allowed_and_none_kept(tensors, monkeypatch):
    rows = []
    linear = F.linear
    monkeypatch.setattr(F, 'linear', lambda x, *rest: rows.append(len(x)) or linear(x, *rest))
    loss, _ = linear_cross_entropy(*tensors)
    assert max(rows) == 7 and sum(rows) == len(tensors[0]) + 1  # one row, for its precision
    assert [each.shape for each in loss.grad_fn.saved_tensors] == [each.shape for each in tensors[:3]]
    with torch.no_grad():
        assert torch.equal(linear_cross_entropy(*tensors)[0], loss)


def test_compiled_it_is_one_graph(tensors):
    compiled = torch.compile(linear_cross_entropy, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(outcome(compiled, *tensors), outcome(linear_cross_entropy, *tensors))
