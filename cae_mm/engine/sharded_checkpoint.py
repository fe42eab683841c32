"""Checkpoints in parts: each process writes its own."""
import io
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed import checkpoint as dcp

from cae_mm.atomic import TEMPORARY, replace_folder, write_atomically
from cae_mm.parts import FILE, INDEX, METADATA, REST, STATES, crc_of
from cae_mm.seal import checksum_of, seal


def temporary(path: Path) -> Path:
    """What a folder is called while it is written: the same in all processes."""
    return path.with_name(path.name + TEMPORARY)


def take_arrays(checkpoint: dict) -> dict[str, Tensor]:
    """Move the arrays of weights and optimizer out of a checkpoint, as copies in the machine's memory.

    Returns:
        dict[str, Tensor]: by the names 'state_dict/NAME' and 'optimizer/NUMBER/NAME', with the number of
        the parameter in the optimizer.
    """
    places = {key: checkpoint[key] for key in STATES if key in checkpoint}
    if optimizer := checkpoint.get('optimizer'):
        states = {number: dict(state) for number, state in optimizer['state'].items()}
        checkpoint['optimizer'] = {**optimizer, 'state': states}  # the optimizer keeps its own
        places |= {f'optimizer/{number}': state for number, state in states.items()}
    return {f'{place}/{name}': values.pop(name).detach().to('cpu', copy=True)
            for place, values in places.items()
            for name in [name for name, value in values.items() if torch.is_tensor(value)]}


class PartsWriter(dcp.FileSystemWriter):
    """Writes a folder that gets its name when the parts of all processes are on the disk.

    Args:
        path (Path): the folder; its ``rest.pth`` is there already, under its temporary name. What is to be
            written are arrays of ``take_arrays``.
        done (Callable): the first process calls it then.
    """

    def __init__(self, path: Path, done: Callable[[], None]):
        super().__init__(temporary(path), per_thread_copy_ahead=0)  # What it gets is on the CPU.
        self.named, self.done = path, done

    def stage(self, state_dict: dict) -> dict:
        """Give what is a copy already."""
        return state_dict

    def storage_meta(self) -> None:
        """Leave out where it was written."""

    def write_data(self, plan, planner) -> torch.futures.Future:
        """Write this process's part; give each array's place with the CRC-32 of its numbers."""
        sums = {item.index: int(checksum_of(planner.resolve_data(item)).split()[-1], 16)
                for item in plan.items}
        future = torch.futures.Future()
        future.set_result([(result, sums[result.index]) for result in
                           super().write_data(plan, planner).value()])
        return future

    def finish(self, metadata, results: list[list[tuple]]) -> None:
        """Write where the arrays of all processes are, and give the folder its name."""
        super().finish(metadata, [[result for result, _ in part] for part in results])
        arrays = metadata.state_dict_metadata
        sides = {(key, box.offsets): box.sizes for key, array in arrays.items() for box in array.chunks}
        tables = {key: [] for key in arrays}
        for rank, part in enumerate(results):
            for result, crc in part:
                key, begin, place = result.index.fqn, result.index.offset, result.storage_data
                tables[key].append([rank, place.offset, place.length, crc, *begin, *sides[key, begin]])
        tables = {key: torch.tensor(table, dtype=torch.int64) for key, table in tables.items()}
        buffer = io.BytesIO()
        torch.save(seal(dict(tables=tables, meta=dict(
            arrays={key: [array.properties.dtype, [*array.size]] for key, array in arrays.items()},
            sizes=[os.path.getsize(self.path / FILE.format(rank)) for rank in range(len(results))],
            sums={name: crc_of(self.path / name) for name in (REST, METADATA)}))), buffer)
        write_atomically(buffer.getvalue(), self.path / INDEX)
        replace_folder(self.path, self.named)
        self.done()
