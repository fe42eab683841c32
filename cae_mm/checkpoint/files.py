"""Checkpoint files: read without running anything in them, written whole or not at all."""
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from cae_mm.atomic import write_atomically
from cae_mm.checkpoint.containers import describe
from cae_mm.checkpoint.facts import KEY
from cae_mm.checkpoint.inert import Stored
from cae_mm.checkpoint.parts import describe_parts
from cae_mm.parts import in_parts
from cae_mm.seal import CHECKSUMS, check_seal, seal

# Keys under which checkpoints hold their state dict: mmengine, the official code and MAE, DeepSpeed.
STATE_DICTS = ('state_dict', 'model', 'module')
WEIGHTS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# Arrays of a state dict that are no weights: what layers count and look up.
COUNTERS = r'.*(num_batches_tracked|_index|_ids|steps|n_averaged)'


class FileError(ValueError):
    """A file that is refused; says which and why."""


def read_checkpoint(path: str | Path, device: str | torch.device | None = None) -> dict:
    """Read a checkpoint, ``.safetensors``, torch's or a folder of parts, without executing anything in it.

    A pickled module becomes its state dict, a command line and the history of a log become dicts. Checksums
    are compared, those of the file and those of ``seal``.

    Args:
        path (str | Path): the file, or the folder.
        device (str | torch.device, optional): where each tensor goes, but for those of the log's history.
            'meta': all are read and compared, and none is kept.

    Raises:
        FileNotFoundError: when there is no such file.
        FileError: when it needs code to be run, is damaged or no checkpoint, or has a weight that is not
            finite.
    """
    content = _described(path)
    bare = not any(isinstance(content.get(key), dict) for key in STATE_DICTS)
    for key, value in content.items():
        weights = key in (*STATE_DICTS, 'ema_state_dict') or bare and isinstance(value, Stored)
        content[key] = _built(path, value, str(key), weights, None if key == 'message_hub' else device)
    return content


def read_weights(path: str | Path) -> tuple['Weights', dict]:
    """The state dict in a checkpoint file, whose weights are read when used, and its meta.

    Raises:
        FileNotFoundError, FileError: see ``read_checkpoint``.
    """
    content = _described(path)
    state, meta = state_of(content), content.get('meta')
    return Weights(path, state), _built(path, meta, 'meta') if isinstance(meta, dict) else {}


class Weights(Mapping):
    """A state dict whose arrays are read, and checked, when they are asked for."""

    def __init__(self, path: str | Path, stored: dict[str, Stored]):
        self.path, self.stored = path, stored

    def __getitem__(self, name: str) -> Tensor:
        return _weight(self.path, name, self.stored[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)

    def under(self, prefix: str) -> 'Weights':
        """Those whose names begin so, without it; all, when none does."""
        inner = {name.removeprefix(prefix): value for name, value in self.stored.items()
                 if name.startswith(prefix)}
        return Weights(self.path, inner or self.stored)


def _described(path: str | Path) -> Any:
    if not (in_parts(path) or Path(path).is_file()):
        raise FileNotFoundError(f'there is no checkpoint at {path}')
    try:
        content = describe_parts(Path(path)) if in_parts(path) else describe(path)
        if Path(path).suffix == '.safetensors':
            header = content.pop('header')
            content['meta'] = {key: json.loads(header[key]) for key in (KEY, CHECKSUMS) if key in header}
        if not isinstance(content, dict):
            raise ValueError(f'it holds a {type(content).__name__}, and no state dict')
        check_seal(content)
        state_of(content)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError) as error:
        if isinstance(error, OSError) and error.filename:
            raise
        said = ''.join(c if c.isprintable() else '?' for c in str(error))[:500]  # one line
        raise FileError(f'{path} is refused: {said}. Copy it again, or ask its author for the state dict '
                        'alone, as .safetensors or saved by torch.save') from error
    return content


def _read(path: str | Path, name: str, stored: Stored) -> Tensor:
    try:
        return stored.read()
    except (ValueError, OSError) as error:  # a place before the file's beginning, or a disk that fails
        raise FileError(f'{path} is refused: {name}: {error}') from error


def _weight(path: str | Path, name: str, stored: Stored) -> Tensor:
    floating = stored.dtype in WEIGHTS
    if not floating and not (stored.dtype in (torch.int64, torch.int32) and re.fullmatch(COUNTERS, name)):
        raise FileError(f'{path}: {name} is of {stored.dtype}, and weights are floating point numbers of '
                        '16, 32 or 64 bits')
    weight = _read(path, name, stored)
    part = weight.to_local() if isinstance(weight, DTensor) else weight
    if floating and part.numel() and not torch.isfinite(torch.stack(torch.aminmax(part))).all():
        raise FileError(f'{path}: {name} is not finite: take one from before the training diverged')
    return weight


def _built(path: str | Path, value: Any, name: str = '', weights: bool = False, device=None) -> Any:
    """What was described with its tensors read."""
    if isinstance(value, Stored):
        tensor = (_weight if weights else _read)(path, name, value)
        return tensor if device is None else tensor.to(device)
    if isinstance(value, dict):
        result = type(value)({key: _built(path, item, f'{name}.{key}', weights, device)
                              for key, item in value.items()})
        if hasattr(value, '_metadata'):
            result._metadata = value._metadata
        return result
    if isinstance(value, (list, tuple)):
        return type(value)(_built(path, item, f'{name}.{i}', weights, device)
                           for i, item in enumerate(value))
    return value


def state_of(checkpoint: dict) -> dict[str, Tensor | Stored]:
    """The state dict in a checkpoint, bare or under its origin's key, names without wrappers."""
    content = checkpoint if isinstance(checkpoint, dict) else {}
    inner = next((content[key] for key in STATE_DICTS if isinstance(content.get(key), dict)), content)
    # Beside a bare state dict there may be anything, and in one what modules keep besides their arrays.
    wrong = [name for name, value in inner.items() if not isinstance(name, str) or inner is not content
             and not isinstance(value, (Tensor, Stored)) and not name.endswith('_extra_state')]
    if wrong:
        raise ValueError(f'{wrong[0]!r:.100} of its state dict is no array with a name, but '
                         f'{type(inner[wrong[0]]).__name__}: save the whole state dict again')
    state = {re.sub(r'^(module\.|_orig_mod\.)+', '', name): value
             for name, value in inner.items() if isinstance(value, (Tensor, Stored))}
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
        path (str | Path): ends with .pth, .pt or .safetensors; a ValueError for another suffix.
        key (str): what a .pth holds the state dict under.
        meta (dict, optional): what a .pth holds beside it; a .safetensors takes the encoder's facts of it.
    """
    check_suffix(path)
    state = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
    if Path(path).suffix == '.safetensors':
        kept = {KEY: meta[KEY]} if KEY in (meta or {}) else {}
        header = seal(dict(state_dict=state, meta=kept))['meta']
        content = safetensors.torch.save(state, {'format': 'pt'} | {
            name: json.dumps(value) for name, value in header.items()})
    else:
        buffer = io.BytesIO()
        torch.save(seal({key: state, 'meta': dict(meta or {})}), buffer)
        content = buffer.getvalue()
    write_atomically(content, path)
