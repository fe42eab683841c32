"""The encoder of the detector LW-DETR (arXiv 2406.03459), which starts from CAE v2's."""
import re

from torch import Tensor

NUM_HEADS, PATCH, GRID = 12, 16, (14, 14)
# transformers' names of the authors' arrays, each rule applied once.
TRANSFORMERS = [(re.compile(theirs), ours) for theirs, ours in (
    (r'^encoder\.', ''), (r'^pos_embed', 'embeddings.position_embeddings'),
    (r'^patch_embed\.proj', 'embeddings.projection'), (r'^blocks\.', 'encoder.layer.'),
    (r'attn\.proj\.', 'attention.o_proj.'), (r'attn\.([qv])_bias', r'attention.\1_proj.bias'),
    (r'norm1\.', 'layernorm_before.'), (r'norm2\.', 'layernorm_after.'), (r'mlp\.', 'intermediate.'))]


def for_lwdetr(official: dict[str, Tensor], num_heads: int | None) -> dict[str, Tensor]:
    """What the detector's ViT has of an encoder with the authors' names: no class token, and no final norm.

    Its loader takes what fits and keeps random numbers for the rest: a ValueError for any other encoder.
    """
    rows = official['encoder.pos_embed'].shape[1]
    patch = official['encoder.patch_embed.proj.weight'].shape[-1]
    if (num_heads, patch) != (NUM_HEADS, PATCH):
        raise ValueError(f"LW-DETR's ViT has {NUM_HEADS} heads and patches of {PATCH} pixels, this encoder "
                         f'{num_heads} and {patch}: pre-train one of configs/pretrain/cae_v2_vit*_300e.py')
    if any(name.endswith('bias_table') and value.any() for name, value in official.items()):
        raise ValueError("LW-DETR's ViT has no relative positions, this encoder has: take it as it was "
                         'pre-trained')
    if rows != 1 + GRID[0] * GRID[1]:
        raise ValueError(f"LW-DETR's table of positions is of 224x224 pixels, {GRID[0]}x{GRID[1]} patches, "
                         f'this one has {rows} rows: --img-size 224')
    return {name: value for name, value in official.items() if 'relative_position' not in name
            and name.split('.')[1] in ('pos_embed', 'patch_embed', 'blocks')}


def for_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The arrays of :func:`for_lwdetr` by the names of transformers' ``LwDetrViTBackbone``."""
    result = {}
    for name, value in state.items():
        for theirs, ours in TRANSFORMERS:
            name = theirs.sub(ours, name, count=1)
        parts = value.chunk(3) if name.endswith('attn.qkv.weight') else [value]
        result |= {name.replace('attn.qkv', f'attention.{part}_proj'): rows.clone()
                   for part, rows in zip('qkv', parts, strict=False)}
    return result
