"""Names of the official pre-training checkpoints, and ours."""
import re

from torch import Tensor

# (pattern, replacement), tried in order; what matches none keeps its name.
OFFICIAL_TO_OURS = [
    (r'^rd_pos_embed$', 'neck.pos_embed'),
    (r'^mask_token$', 'neck.mask_token'),
    (r'^encoder_to_regresser_norm\.', 'neck.project.1.'),
    (r'^encoder_to_regresser\.', 'neck.project.0.'),
    (r'^encoder\.patch_embed\.proj\.', 'backbone.patch_embed.'),
    (r'^encoder\.', 'backbone.'),
    (r'^regresser\.regressor_blocks\.(\d+)\.cross_attn\.([qv])_bias$', r'neck.blocks.\1.attn.\2.bias'),
    (r'^regresser\.regressor_blocks\.(\d+)\.cross_attn\.', r'neck.blocks.\1.attn.'),
    (r'^regresser\.regressor_blocks\.(\d+)\.(gamma_\d|norm2|mlp)_cross', r'neck.blocks.\1.\2'),
    (r'^regresser\.regressor_blocks\.', 'neck.blocks.'),
    (r'^regresser\.', 'neck.'),
    (r'^decoder\.decoder_blocks\.', 'head.blocks.'),
    (r'^decoder\.', 'head.'),
]


def official_to_ours(name: str) -> str:
    """Our name of an official parameter of the pre-training model."""
    for pattern, replacement in OFFICIAL_TO_OURS:
        ours, matched = re.subn(pattern, replacement, name)
        if matched:
            return ours
    return name


def convert_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict from an official one.

    The alignment encoder is the encoder itself and is left out; the positions that the official
    model keeps once serve the regressor and the decoder.
    """
    ours = {official_to_ours(name): value for name, value in state.items()
            if not name.startswith('alignment_encoder.')}
    ours['head.pos_embed'] = ours['neck.pos_embed']
    return ours
