"""What is counted before a run."""
import pytest

from cae_mm.benchmark.cost import cost_of_encoder


def expected(width, depth, tokens, pixels=3 * 16 * 16):
    """Operations of a plain ViT by hand: patches, and in each block four products and two of attention."""
    block = 2 * tokens * 12 * width**2 + 4 * tokens**2 * width
    return 2 * (tokens - 1) * pixels * width + depth * block


@pytest.mark.parametrize('settings, width', [
    (dict(type='CAEViT', arch='base', img_size=224), 768),
    (dict(type='TimmViT', name='vit_small_patch16_224', out_type='raw', img_size=224), 384)])
def test_a_plain_vit(settings, width):
    cost = cost_of_encoder(settings, (224, 224))
    assert cost['gflops'] == pytest.approx(expected(width, 12, 197) / 1e9, rel=1e-3)
    assert cost['parameters'] == pytest.approx({768: 85.8, 384: 21.7}[width], abs=0.2)
