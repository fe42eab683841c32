"""What the patches mean to an encoder, as colours."""
from collections.abc import Sequence

import torch
from torch import Tensor

from cae_mm.evaluation.features import evaluating
from cae_mm.models import CAEViT, TimmViT

# Patches beyond these shares of all have the darkest and the brightest colour.
DARKEST, BRIGHTEST = 0.01, 0.99


def block_index(backbone: CAEViT | TimmViT, layer: int) -> int:
    """The index of a block, of which -1 is the last; a ValueError when there is no such block."""
    if not -1 <= layer < backbone.num_layers:
        raise ValueError(f'layer={layer}: the encoder has {backbone.num_layers} blocks, '
                         f'0..{backbone.num_layers - 1}, and -1 for the last')
    return layer % backbone.num_layers


@torch.no_grad()
def patch_features(backbone: CAEViT | TimmViT, images: Tensor, layer: int = -1) -> Tensor:
    """Patches (B, h, w, C) of images (B, 3, H, W) behind a block, the last ones behind the final norm."""
    with evaluating(backbone):
        [x], (rows, columns) = backbone.tokens(images, [block_index(backbone, layer)])
    if layer in (-1, backbone.num_layers - 1):
        x = backbone.norm(x)
    return x[:, -rows * columns:].unflatten(1, (rows, columns))


def pca_colours(features: Sequence[Tensor]) -> list[Tensor]:
    """The three principal components of all patches of all pictures, as red, green and blue.

    Of each picture (h, w, C) -> (h, w, 3) in [0, 1]. The sign of a component is free: here its largest
    coefficient is positive.
    """
    sizes = [x.shape[:2] for x in features]
    x = torch.cat([x.flatten(0, 1) for x in features]).double()
    x = x - x.mean(0)
    axes = torch.linalg.eigh(x.mT @ x).eigenvectors[:, -3:].flip(1)  # the largest first
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    colours = x @ axes
    low, high = colours.quantile(torch.tensor([DARKEST, BRIGHTEST], dtype=x.dtype, device=x.device), dim=0)
    colours = ((colours - low) / (high - low).clamp(min=1e-12)).clamp(0, 1).float()
    return [colour.unflatten(0, size)
            for colour, size in zip(colours.split([h * w for h, w in sizes]), sizes, strict=True)]
