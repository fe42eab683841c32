"""The attentive probe: what it reads, how it starts, and in what state it is evaluated."""
import pytest
import torch
import torch.nn.functional as F

from cae_mm.models import AttentiveProbeHead


def probe(**changes):
    torch.manual_seed(0)
    return AttentiveProbeHead(**dict(num_classes=5, in_channels=512, num_heads=4) | changes)


def test_start():
    """The attention is uniform, the layers have the official deviations, and no bias is set."""
    head = probe(num_classes=300)
    head.init_weights()
    tokens = torch.randn(2, 10, 512)
    torch.testing.assert_close(head.attention(tokens), torch.full((2, 4, 10), 0.1))
    attn = head.cross_attn
    for layer, std in ((attn.q, 0.02), (attn.k, 0.02), (attn.v, 0.02), (attn.proj, 0.02),
                       (head.fc, 0.01)):
        assert layer.weight.std().item() == pytest.approx(std, rel=0.02)
        assert layer.bias is None or not layer.bias.any()
    mean = F.linear(head.norm_v(tokens).mean(1), attn.v.weight)
    torch.testing.assert_close(head.pool(tokens), attn.proj(mean))


def test_attention_is_what_the_pooling_uses():
    head, tokens = probe(), torch.randn(3, 10, 512)
    torch.nn.init.normal_(head.query_token)
    weights = head.attention(tokens)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4))
    assert weights.std() > 0.01
    values = head.cross_attn.v(head.norm_v(tokens)).unflatten(-1, (4, -1))
    read = torch.einsum('bhn,bnhd->bhd', weights, values).flatten(1)
    torch.testing.assert_close(head.pool(tokens), head.cross_attn.proj(read))


def test_evaluation_uses_running_statistics():
    """In training the neighbours in the batch matter, in evaluation they do not."""
    head, tokens = probe(), torch.randn(4, 10, 512)
    assert not torch.allclose(head((tokens[:2],)), head((tokens,))[:2], atol=1e-4)
    head.eval()
    before = head.bn.running_mean.clone()
    torch.testing.assert_close(head((tokens[:2],)), head((tokens,))[:2])
    assert before.any() and torch.equal(head.bn.running_mean, before)


def test_other_features_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 512\): build the backbone with out_type='raw'"):
        probe()((torch.randn(2, 512),))
    with pytest.raises(ValueError, match='512 channels do not split into 7 heads'):
        probe(num_heads=7)
