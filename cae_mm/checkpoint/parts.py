"""Checkpoints in parts, read by one process whole or by each its own part."""
import io
from functools import partial
from math import prod
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from cae_mm.checkpoint.containers import describe
from cae_mm.checkpoint.inert import Stored, row_major
from cae_mm.parts import FILE, INDEX, LAYOUTS, METADATA, REST, STATES, crc_of
from cae_mm.seal import CHANGED, check_seal, checksum_of


def describe_parts(folder: Path) -> dict:
    """The content of a checkpoint in parts with ``Stored`` for each tensor, see ``describe``.

    Raises:
        ValueError: naming the file that is missing, damaged, or of another checkpoint.
    """
    index = _described(folder, INDEX)
    sizes = {FILE.format(rank): size for rank, size in enumerate(index['meta']['sizes'])}
    for name in (REST, METADATA, *sizes):
        if not (folder / name).is_file():
            raise ValueError(f'its {name} is missing')
        there = (folder / name).stat().st_size
        if there != sizes.get(name, there):
            raise ValueError(f'its {name} has {there} bytes, and {sizes[name]} were written')
        if name not in sizes and crc_of(folder / name) != index['meta']['sums'][name]:
            raise ValueError(f'its {name} is not the one that was written')
    content, read = _described(folder, REST), 0
    for key, (dtype, shape) in index['meta']['arrays'].items():
        table = index['tables'][key].read().long().tolist()
        stored = row_major(key, dtype, shape, partial(_read, folder, table))
        boxes = [row[4 + len(shape):] for row in table]
        if sum(map(prod, boxes)) != prod(shape) or not all(
                min(row) >= 0 and len(box) == len(shape) and row[0] < len(sizes)
                and prod(box) * dtype.itemsize <= row[2] for row, box in zip(table, boxes, strict=True)):
            raise ValueError(f'its {INDEX} has not all of {key}')
        read += sum(row[2] for row in table)
        kind, _, name = key.partition('/')
        if kind in STATES:
            content[kind][name] = stored
        else:
            number, _, name = name.partition('/')
            content['optimizer']['state'][int(number)][name] = stored
    if read > sum(sizes.values()):
        raise ValueError(f'its {INDEX} has more than its files')
    return content


def _described(folder: Path, name: str) -> dict:
    try:
        content = describe(folder / name)
        check_seal(content)
    except FileNotFoundError:
        raise ValueError(f'its {name} is missing') from None
    except ValueError as error:
        raise ValueError(f'its {name}: {error}') from error
    return content


def _read(folder: Path, table: list[list[int]], stored: Stored) -> Tensor:
    """All of an array, or of one that is shared out this process's part."""
    key, axes = stored.storage.key, len(stored.shape)
    like = LAYOUTS.get(key, LAYOUTS.get(key.rpartition('/')[0]))
    shared = isinstance(like, DTensor) and like.shape == stored.shape
    shape, start = (compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
                    if shared else (stored.shape, (0,) * axes))
    array = torch.empty(shape, dtype=stored.dtype)
    for rank, place, length, crc, *box in table:
        begin, sides = box[:axes], box[axes:]
        low = [*map(max, start, begin)]
        high = [min(a + m, b + n) for a, m, b, n in zip(start, shape, begin, sides, strict=True)]
        if all(map(int.__lt__, low, high)):
            part = _payload(folder / FILE.format(rank), place, length, crc, stored.dtype, sides)
            array[_box(low, high, start)] = part[_box(low, high, begin)]
    return array if not shared else DTensor.from_local(
        array, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride())


def _box(low, high, origin) -> tuple[slice, ...]:
    return tuple(slice(a - o, b - o) for a, b, o in zip(low, high, origin, strict=True))


def _payload(path: Path, place: int, length: int, crc: int, dtype: torch.dtype, shape: list[int]) -> Tensor:
    try:
        with open(path, 'rb') as file:
            file.seek(place)
            stored = describe(io.BytesIO(file.read(length)))
        if not isinstance(stored, Stored):
            raise ValueError('there is no tensor where one was written')
        stored.checksum = checksum_of(row_major('', dtype, shape, None), crc)
        return stored.read()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f'{path.name}: {str(error).removesuffix(f". {CHANGED}")}') from error
