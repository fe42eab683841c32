"""Attention in bfloat16 on a CPU: by plain products where the fused one is slow, and near float32."""
import pytest
import torch
import torch.nn.functional as F

from cae_mm.models.layers import PLAIN_TOKENS, CrossAttention, SelfAttention, attend


@pytest.fixture
def fused(monkeypatch):
    """The dtypes in which PyTorch's fused attention was called."""
    calls, attention = [], F.scaled_dot_product_attention
    monkeypatch.setattr(F, 'scaled_dot_product_attention',
                        lambda q, *rest, **options: calls.append(q.dtype) or attention(q, *rest, **options))
    return calls


@pytest.mark.parametrize('kind', [SelfAttention, CrossAttention])
def test_both_kinds_with_gradients(fused, kind):
    torch.manual_seed(0)
    layer = kind(64, 4, window=(4, 5)) if kind is SelfAttention else kind(64, 4)
    tokens = torch.randn(2, 21, 64)

    def outcome(amp):
        with torch.autocast('cpu', torch.bfloat16, enabled=amp):
            output = layer(*[tokens] * (1 if kind is SelfAttention else 3))
        grads = torch.autograd.grad(output.float().square().sum(), layer.parameters())
        return output, *grads

    exact = outcome(False)
    assert fused == [torch.float32]
    for found, expected in zip(outcome(True), exact, strict=True):
        assert (found - expected).norm() < 0.02 * expected.norm()
    assert fused == [torch.float32]
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        layer(*[tokens] * (1 if kind is SelfAttention else 3))
    assert fused == [torch.float32, torch.bfloat16]


def test_long_sequences_keep_no_weights(fused):
    for tokens, calls in ((PLAIN_TOKENS, 0), (PLAIN_TOKENS + 1, 1)):
        q, k, v = torch.randn(3, 1, 1, tokens, 8, dtype=torch.bfloat16, requires_grad=True)
        attend(q, k, v)
        assert len(fused) == calls
