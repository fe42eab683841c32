"""Tokenizer weights: fetched, checked, and loaded whole."""
from collections.abc import Callable
from pathlib import Path

from mmengine.registry import WEIGHT_INITIALIZERS
from torch import nn

from cae_mm.checkpoint.files import read_weights
from cae_mm.checkpoint.sources import fetch


@WEIGHT_INITIALIZERS.register_module('PretrainedTokenizer')
def pretrained_tokenizer(checkpoint: str | Path | None = None, sha256: str | None = None) -> Callable:
    """Fill a tokenizer from a checkpoint, see ``fetch``, that holds each of its weights and no others.

    The initializer that is returned raises a ValueError for names and shapes that differ, with a list.
    """
    def load(module: nn.Module) -> None:
        state, _ = read_weights(fetch(checkpoint, sha256))
        try:
            module.load_state_dict(dict(state))
        except RuntimeError as error:
            raise ValueError(f'{checkpoint} is of another architecture; give the settings it was trained '
                             f'with. {error}') from error

    return load
