"""What the class token, and the query of an attentive probe, look at."""
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch import Tensor

from cae_mm.checkpoint.files import read_weights
from cae_mm.checkpoint.loader import compare
from cae_mm.evaluation.features import evaluating
from cae_mm.models import AttentiveProbeHead, CAEViT, TimmViT
from cae_mm.models.layers import attention_weights
from cae_mm.visualization.features import block_index, patch_features, pca_colours


def look(backbone: CAEViT | TimmViT, preprocess: Callable, images: Sequence[Tensor], layer: int = -1,
         heads: bool = False, probe: AttentiveProbeHead | None = None) -> tuple[list[str], list[list]]:
    """What an encoder looks at in pictures, and how it sees their patches: titles and rows of a figure.

    Of each picture itself, a map of each kind, and the three principal components of the patches of all
    pictures together as colours.

    Args:
        preprocess (Callable): normalises RGB images, see ``load_encoder``.
        images (Sequence[Tensor]): each (3, H, W) uint8 RGB, of sizes that the encoder takes.
        layer (int): index of the block; -1 is the last.
        heads (bool): a column for each attention head, too.
        probe (AttentiveProbeHead, optional): whose query is drawn, too.
    """
    maps = {}
    if backbone.has_cls_token:
        maps['class token'] = lambda inputs: class_attention(backbone, inputs, layer)
    if probe is not None:
        maps['probe query'] = lambda inputs: probe_attention(probe, backbone, inputs)
    rows, patches = [], []
    for image in images:
        inputs = preprocess({'inputs': image[None]})['inputs']
        titles, row = ['picture'], [image.permute(1, 2, 0) / 255]
        for name, weigh in maps.items():
            [weights] = weigh(inputs).float().cpu()
            titles.append(name)
            row.append(weights.mean(0))
            if heads:
                titles += [f'head {i}' for i in range(len(weights))]
                row += weights
        rows.append(row)
        patches += patch_features(backbone, inputs, layer).float().cpu()
    for row, colours in zip(rows, pca_colours(patches), strict=True):
        row.append(colours)
    return [*titles, 'patches'], rows


@torch.no_grad()
def class_attention(backbone: CAEViT | TimmViT, images: Tensor, layer: int = -1) -> Tensor:
    """How much the class token takes from each patch in block ``layer``: (B, heads, h, w).

    Of normalised images (B, 3, H, W). What is missing to a sum of 1 it takes from itself, and from register
    tokens. A ValueError without a class token.
    """
    if not backbone.has_cls_token:
        raise ValueError('with_cls_token=False: the encoder has no class token that could look')
    layer = block_index(backbone, layer)
    if isinstance(backbone, TimmViT):
        return _timms_attention(backbone, images, layer)
    with evaluating(backbone):
        taps, grid = backbone.tokens(images, [layer - 1])
        x = taps[0] if layer else backbone.embed(images)
    block = backbone.blocks[layer]
    q, k, _ = block.attn.project(block.norm1(x))
    bias = None if block.attn.rel_pos is None else block.attn.rel_pos()[..., :1, :]
    return attention_weights(q[:, :, :1], k, bias)[:, :, 0, 1:].unflatten(-1, grid)


def _timms_attention(backbone: TimmViT, images: Tensor, layer: int) -> Tensor:
    attn, seen = backbone.vit.blocks[layer].attn, []
    fused = attn.fused_attn  # which leaves no weights to look at
    hook = attn.attn_drop.register_forward_hook(lambda module, inputs, weights: seen.append(weights))
    try:
        attn.fused_attn = False
        with evaluating(backbone):
            _, grid = backbone.tokens(images, [layer])
    finally:
        attn.fused_attn = fused
        hook.remove()
    return seen[0][:, :, 0, backbone.num_prefix_tokens:].unflatten(-1, grid)


def load_probe(cfg: Config, checkpoint: str | Path) -> AttentiveProbeHead:
    """The trained attentive probe of a classifier's checkpoint; a RuntimeError where there is none."""
    head = MODELS.build(cfg.model.head)
    own, (state, _) = head.state_dict(), read_weights(checkpoint)
    given = {name.removeprefix('head.'): state[name] for name in state if name.startswith('head.')}
    # The classes, and how many there are, do not matter here.
    given |= {name: value for name, value in own.items() if name.startswith('fc.')}
    problems = compare(own, given)
    if problems:
        raise RuntimeError(f'{checkpoint} does not hold the attentive probe of this config. {problems}. '
                           'To see the encoder alone, name the config of its pre-training')
    head.load_state_dict(given)
    return head


@torch.no_grad()
def probe_attention(head: AttentiveProbeHead, backbone: CAEViT, images: Tensor) -> Tensor:
    """How much the query of an attentive probe takes from each patch: (B, heads, h, w).

    Of normalised images (B, 3, H, W). What is missing to a sum of 1 it takes from the class token.
    """
    with evaluating(backbone):
        weights = head.attention(backbone.encode(images))
    return weights[..., 1:].unflatten(-1, backbone.grid(*images.shape[-2:]))
