"""What the class token, and the query of an attentive probe, look at."""
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch import Tensor

from cae_mm.checkpoint.loader import compare, read_checkpoint
from cae_mm.evaluation.features import evaluating
from cae_mm.models import AttentiveProbeHead, CAEViT
from cae_mm.models.layers import SelfAttention
from cae_mm.visualization.features import trace


def attention_weights(attn: SelfAttention, x: Tensor, num_queries: int | None = None) -> Tensor:
    """The softmax that fused attention does not keep.

    Args:
        attn (SelfAttention): of a block.
        x (Tensor): (B, n, C) that it reads, the block's tokens after ``norm1``.
        num_queries (int, optional): take only the first tokens as queries; all n by default.

    Returns:
        Tensor: (B, heads, num_queries, n); its rows sum to 1.
    """
    q_weight, k_weight, _ = attn.qkv.weight.chunk(3)
    q, k = (y.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for y in (
        F.linear(x[:, :num_queries], q_weight, attn.q_bias), F.linear(x, k_weight)))
    scores = q @ k.mT * q.shape[-1] ** -0.5
    if attn.rel_pos is not None:
        scores = scores + attn.rel_pos()[..., :num_queries, :]
    return scores.softmax(-1)


@torch.no_grad()
def class_attention(backbone: CAEViT, images: Tensor, layer: int = -1) -> Tensor:
    """How much the class token takes from each patch, in one block.

    Args:
        backbone (CAEViT): with a class token.
        images (Tensor): (B, 3, H, W), normalised.
        layer (int): index of the block; -1 is the last.

    Returns:
        Tensor: (B, heads, h, w); what is missing to a sum of 1 it takes from itself.

    Raises:
        ValueError: without a class token; see ``trace``.
    """
    if backbone.cls_token is None:
        raise ValueError('with_cls_token=False: the encoder has no class token that could look')
    x, _ = trace(backbone, images, layer)
    block = backbone.blocks[layer]
    weights = attention_weights(block.attn, block.norm1(x), num_queries=1)
    return weights[:, :, 0, 1:].unflatten(-1, backbone.grid(*images.shape[-2:]))


def load_probe(cfg: Config, checkpoint: str | Path) -> AttentiveProbeHead:
    """The attentive probe of a classifier's config, with the query that was trained.

    Args:
        cfg (Config): its ``model.head`` is an ``AttentiveProbeHead``.
        checkpoint (str | Path): of the whole classifier.

    Raises:
        RuntimeError: when the checkpoint has no such probe.
    """
    head = MODELS.build(cfg.model.head)
    own, state = head.state_dict(), read_checkpoint(checkpoint)
    given = {name.removeprefix('head.'): value for name, value in state.get('state_dict', state).items()
             if name.startswith('head.')}
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
    """How much the query of an attentive probe takes from each patch.

    Args:
        head (AttentiveProbeHead): the trained probe.
        backbone (CAEViT): the encoder that it was trained on.
        images (Tensor): (B, 3, H, W), normalised.

    Returns:
        Tensor: (B, heads, h, w); what is missing to a sum of 1 it takes from the class token.
    """
    with evaluating(backbone):
        weights = head.attention(backbone.encode(images))
    return weights[..., 1:].unflatten(-1, backbone.grid(*images.shape[-2:]))
