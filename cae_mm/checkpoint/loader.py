"""Reading checkpoints safely, and loading the encoder whole or not at all."""
from pathlib import Path

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, print_log
from mmengine.model import is_model_wrapper
from mmpretrain.registry import HOOKS
from torch import Tensor, nn

# What mmengine stores beside tensors: the log's history, as numpy arrays.
SAFE_GLOBALS = [
    HistoryBuffer, np.ndarray, np.dtype, np._core.multiarray._reconstruct,
    np._core.multiarray.scalar, *{type(np.dtype(t)) for t in 'bBhHiIlLqQefd?'},
    # HistoryBuffer pickles its statistics methods by name.
    getattr,
]


def read_checkpoint(path: str | Path) -> dict:
    """Read a checkpoint file without executing anything in it.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file needs code to be run, is truncated, or is not a checkpoint.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'there is no checkpoint at {path}')
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
        raise ValueError(f'{path} is not a checkpoint of tensors: {error}. It may be truncated; if it '
                         'is a pickled module you trust, load it where its code is installed and '
                         'save module.state_dict()') from error


def compare(own: dict[str, Tensor], given: dict[str, Tensor]) -> str:
    """Name every key that is missing, unexpected or of another shape; '' when all fit."""
    wrong = [f'{name}: {tuple(given[name].shape)} in the file, {tuple(own[name].shape)} in the model'
             for name in own.keys() & given.keys() if given[name].shape != own[name].shape]
    lists = {'missing': own.keys() - given.keys(), 'unexpected': given.keys() - own.keys(),
             'of another shape': wrong}
    return '; '.join(f'{len(names)} {what}: {", ".join(sorted(names)[:8])}'
                     + (', ...' if len(names) > 8 else '') for what, names in lists.items() if names)


def load_backbone(backbone: nn.Module, path: str | Path, prefix: str = 'backbone.') -> None:
    """Fill the whole encoder from a checkpoint, or raise.

    A sine-cosine table of another patch grid is not loaded: the encoder keeps its own, exact one.

    Args:
        backbone (nn.Module): a ``CAEViT``.
        path (str | Path): checkpoint with the key ``state_dict``, or a bare state dict.
        prefix (str): what the encoder's keys begin with in the file.

    Raises:
        FileNotFoundError, ValueError: see ``read_checkpoint``.
        RuntimeError: when a key is missing, unexpected or of another shape; names them.
    """
    state = read_checkpoint(path)
    state = state.get('state_dict', state)
    given = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    own = backbone.state_dict()
    shapes = [table['pos_embed'].shape for table in (given, own) if 'pos_embed' in table]
    if len(shapes) == 2 and shapes[0][2] == shapes[1][2] and shapes[0][1] != shapes[1][1]:
        # Only an undisturbed table of a square grid can be recomputed for another grid.
        from cae_mm.models.layers import sincos_positions
        _, tokens, dims = given['pos_embed'].shape
        side = round((tokens - 1) ** 0.5)
        if side * side != tokens - 1 or not torch.allclose(
                given['pos_embed'].float(), sincos_positions(dims, side, side), atol=1e-5):
            raise RuntimeError(f'{path}: its position table {tuple(given["pos_embed"].shape)} is not '
                               f'the sine-cosine one, and the model needs '
                               f'{tuple(own["pos_embed"].shape)}: build the encoder with the img_size '
                               'of the checkpoint')
        given['pos_embed'] = own['pos_embed']
    problems = compare(own, given)
    if problems:
        raise RuntimeError(f'{path} does not hold this encoder (keys beginning with {prefix!r}). '
                           f'{problems}. Build the encoder with the arch, patch_size and options '
                           'the checkpoint was trained with')
    backbone.load_state_dict(given)
    print_log(f'loaded the whole encoder, {len(given)} arrays, from {path}', 'current')


@HOOKS.register_module()
class StrictLoadHook(Hook):
    """Refuse a checkpoint that does not fit the model exactly, before anything is loaded.

    Without it mmengine's Runner only warns, and resumes with random weights.
    """

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare keys and shapes.

        Raises:
            RuntimeError: naming what is missing, unexpected or of another shape.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        given = {k.removeprefix('module.'): v for k, v in checkpoint['state_dict'].items()}
        problems = compare(model.state_dict(), given)
        if problems:
            raise RuntimeError(f'the checkpoint is of another model than {type(model).__name__} of '
                               f'this config. {problems}. Use the config it was trained with, or '
                               'load only the encoder with backbone.init_cfg')
