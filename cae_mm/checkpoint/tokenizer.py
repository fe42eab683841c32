"""Tokenizer weights: fetched, checked, and loaded whole."""
from pathlib import Path

from mmengine.registry import WEIGHT_INITIALIZERS
from torch import nn

from cae_mm.checkpoint.files import read_weights
from cae_mm.checkpoint.sources import fetch


@WEIGHT_INITIALIZERS.register_module()
class PretrainedTokenizer:
    """Fill a tokenizer from a checkpoint that holds each of its weights and no others.

    Args:
        checkpoint, sha256: see :func:`fetch`.
    """

    def __init__(self, checkpoint: str | Path | None = None, sha256: str | None = None):
        self.checkpoint, self.sha256 = checkpoint, sha256

    def __call__(self, module: nn.Module) -> None:
        """Load the weights.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file is not readable, or for names and shapes that differ, with a list.
        """
        state, _ = read_weights(fetch(self.checkpoint, self.sha256))
        try:
            module.load_state_dict(dict(state))
        except RuntimeError as error:
            raise ValueError(f'{self.checkpoint} is of another architecture; give the settings it was '
                             f'trained with. {error}') from error
