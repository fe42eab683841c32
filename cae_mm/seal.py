"""Checkpoints of ours: plain values alone, and checksums by which a change is noticed."""
import json
import logging
import zlib
from argparse import Namespace
from collections import Counter, OrderedDict
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from torch import Tensor

CHECKSUMS = 'checksums'  # of ``checkpoint['meta']``, and of a safetensors header
CHANGED = f"If that was on purpose, delete meta['{CHECKSUMS}'] of the file"
HISTORY = ('log', 'count', 'max_length')


def checksum_of(tensor: Tensor, crc: int | None = None) -> str:
    """Type and shape of a tensor and the CRC-32 of its numbers, as text.

    Args:
        tensor (Tensor): or another object with ``dtype`` and ``shape``, if the sum is known.
        crc (int, optional): the sum of its numbers.
    """
    if crc is None:
        crc = zlib.crc32(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return f'{str(tensor.dtype).removeprefix("torch.")} {"x".join(map(str, tensor.shape))} {crc:08x}'


def seal(content: dict) -> dict:
    """A checkpoint without objects of classes, and with the checksums of what it holds.

    Args:
        content (dict): what would be saved; the history of a log becomes two tensors, and what has
            no plain form is left out, with a warning.
    """
    content = _plain(content, 'checkpoint')
    meta = content['meta'] = content.get('meta', {})
    meta.pop(CHECKSUMS, None)
    tensors = {}
    rest = _rest(content, tensors)
    sums = {name: checksum_of(tensor) for name, tensor in tensors.items()}
    meta[CHECKSUMS] = dict(tensors=sums, rest=rest)
    return content


def check_seal(content: Any) -> None:
    """Compare what was described with its checksums, if it has any; its tensors will be when they are read.

    Raises:
        ValueError: naming what was changed.
    """
    meta = content.get('meta') if isinstance(content, dict) else None
    sums = meta.pop(CHECKSUMS, None) if isinstance(meta, dict) else None
    if sums is None:
        return
    tensors, expected = {}, sums['tensors']
    rest = _rest(content, tensors)
    wrong = sorted(tensors.keys() ^ expected.keys())
    for name in tensors.keys() & expected.keys():
        tensors[name].checksum = expected[name]
        if checksum_of(tensors[name], 0).split(' ')[:2] != expected[name].split(' ')[:2]:
            wrong.append(name)
    if wrong or rest != sums['rest']:
        what = f'{len(wrong)} of its tensors, such as {wrong[0]},' if wrong else 'its numbers and texts'
        raise ValueError(f'{what} are not those that were written. {CHANGED}')


def _rest(value: Any, tensors: dict) -> str:
    """The CRC-32 of all that is no tensor; tensors are collected by where they are."""
    def outline(value, place):
        if hasattr(value, 'dtype'):
            tensors[place] = value
            return None
        if isinstance(value, dict):
            return [[key, outline(value[key], f'{place}/{key}' if place else str(key))]
                    for key in sorted(value, key=str)]  # safetensors has an order of its own
        if isinstance(value, (list, tuple)):
            return [outline(item, f'{place}/{i}') for i, item in enumerate(value)]
        return value

    return f'{zlib.crc32(json.dumps(outline(value, ""), default=str).encode()):08x}'


def _plain(value: Any, place: str) -> Any:
    if value is None or isinstance(value, (bool, bytes, torch.dtype, Tensor)):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, HistoryBuffer):
        return dict(zip(HISTORY, (*map(torch.from_numpy, value.data), value.max_length), strict=True))
    if isinstance(value, dict):
        kind = next(kind for kind in (Counter, OrderedDict, dict) if isinstance(value, kind))
        result = kind({key: _plain(item, f'{place}/{key}') for key, item in value.items()})
        if hasattr(value, '_metadata'):
            result._metadata = value._metadata
        return result
    if isinstance(value, (list, tuple, set)):
        return (tuple if isinstance(value, tuple) else list)(_plain(item, place) for item in value)
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist(), place)
    if isinstance(value, (PurePath, torch.device)):
        return str(value)
    if isinstance(value, Namespace):
        return _plain(vars(value), place)
    print_log(f'{place}: a {type(value).__name__} has no plain form and is not saved', 'current',
              logging.WARNING)
    return None
