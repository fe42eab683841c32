"""A small encoder whose attention is not uniform."""
import pytest
import torch

from cae_mm.models import CAEViT


@pytest.fixture
def make_backbone():
    """A function that builds a CAEViT with patches of 4 pixels, 3 blocks of 2 heads, random weights."""

    def make(**settings):
        settings = dict(img_size=(8, 12), patch_size=4, drop_path_rate=0.5) | settings
        backbone = CAEViT(dict(embed_dims=16, num_layers=3, num_heads=2), **settings)
        generator = torch.Generator().manual_seed(0)
        for parameter in backbone.parameters():
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
        return backbone

    return make


@pytest.fixture
def images():
    return torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))
