"""Checkpoint files: read without running anything in them, written whole or not at all."""
import argparse
import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from cae_mm.atomic import write_atomically
from cae_mm.checkpoint.facts import KEY

# What mmengine stores beside tensors, the log's history as numpy arrays, and what the official code
# and MAE do, their command line.
SAFE_GLOBALS = [
    HistoryBuffer, np.ndarray, np.dtype, np._core.multiarray._reconstruct,
    np._core.multiarray.scalar, *{type(np.dtype(t)) for t in 'bBhHiIlLqQefd?'},
    # HistoryBuffer pickles its statistics methods by name.
    getattr, argparse.Namespace,
]
# Keys under which checkpoints hold their state dict: mmengine, the official code and MAE, DeepSpeed.
STATE_DICTS = ('state_dict', 'model', 'module')


def read_checkpoint(path: str | Path) -> dict:
    """Read a checkpoint file, ``.safetensors`` or torch's, without executing anything in it.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file needs code to be run, is truncated, or is not a checkpoint.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'there is no checkpoint at {path}')
    try:
        if Path(path).suffix == '.safetensors':
            with safetensors.safe_open(path, 'pt') as file:
                header = file.metadata() or {}
                return dict(state_dict={name: file.get_tensor(name) for name in file.keys()},
                            meta={KEY: json.loads(header[KEY])} if KEY in header else {})
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            # Mapped, what nobody touches is never read: the optimizer's state is two thirds of a file.
            return torch.load(path, map_location='cpu', weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        raise ValueError(f'{path} is not a checkpoint of tensors: {error}. It may be truncated; if it '
                         'is a pickled module you trust, load it where its code is installed and '
                         'save module.state_dict()') from error


def state_of(checkpoint: dict) -> dict[str, Tensor]:
    """The state dict in a checkpoint, bare or under the key its origin uses, names without wrappers.

    Raises:
        ValueError: when there is none.
    """
    content = checkpoint if isinstance(checkpoint, dict) else {}
    inner = next((content[key] for key in STATE_DICTS if isinstance(content.get(key), dict)), content)
    state = {re.sub(r'^(module\.|_orig_mod\.)+', '', name): value
             for name, value in inner.items() if isinstance(value, Tensor)}
    if not state:
        raise ValueError(f'there is no state dict, neither bare nor under {", ".join(STATE_DICTS)}, in a '
                         f'{type(checkpoint).__name__} of {list(inner)[:8]}: save the one you want')
    return state


def check_suffix(path: str | Path) -> None:
    """Raise ValueError for a name that ``write_checkpoint`` does not know how to write."""
    if Path(path).suffix not in ('.pth', '.pt', '.safetensors'):
        raise ValueError(f'{path}: name a .pth, .pt or .safetensors file')


def write_checkpoint(state: dict[str, Tensor], path: str | Path, key: str = 'state_dict',
                     meta: dict | None = None) -> None:
    """Write a file that can be read safely, replacing a former one at once when it is on the disk.

    Args:
        state (dict[str, Tensor]): each is written with nothing else of its storage.
        path (str | Path): ends with .pth, .pt or .safetensors.
        key (str): what a .pth holds the state dict under.
        meta (dict, optional): what a .pth holds beside it; of it, the header of a .safetensors
            takes the facts of the encoder.

    Raises:
        ValueError: for another suffix.
    """
    check_suffix(path)
    meta = meta or {}
    state = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
    if Path(path).suffix == '.safetensors':
        header = {KEY: json.dumps(meta[KEY])} if KEY in meta else {}
        content = safetensors.torch.save(state, {'format': 'pt', **header})
    else:
        buffer = io.BytesIO()
        torch.save({key: state, 'meta': meta}, buffer)
        content = buffer.getvalue()
    write_atomically(content, path)
