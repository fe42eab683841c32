"""Checkpoints in parts: folders in which each process of a training has written a file of its own.

Arrays are in the files of ``torch.distributed.checkpoint``, their places in ``index.pth``, and all else in
``rest.pth``. PyTorch's ``.metadata``, a pickle, is there for its own tools and not unpickled here.
"""
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

SUFFIX, INDEX, REST, METADATA = '.dcp', 'index.pth', 'rest.pth', '.metadata'
FILE = '__{}_0.distcp'  # with the rank: of a FileSystemWriter with one thread
STATES = 'state_dict', 'ema_state_dict'
LAYOUTS = {}  # what ``read_like`` is given


def in_parts(path: str | Path) -> bool:
    """Whether a path is that of a checkpoint in parts, or of what is left of one."""
    path = Path(path)
    return path.is_dir() and (path.suffix == SUFFIX or (path / METADATA).exists())


@contextmanager
def read_like(layouts: dict[str, Tensor]) -> Iterator[None]:
    """Let each process read no more than its part of arrays that are shared out.

    Args:
        layouts (dict[str, Tensor]): arrays by their names in the checkpoint, 'state_dict/NAME', or by the
            names of what holds them, 'optimizer/NUMBER'.
    """
    LAYOUTS.update(layouts)
    try:
        yield
    finally:
        LAYOUTS.clear()


def crc_of(path: Path) -> int:
    """The CRC-32 of a file."""
    crc = 0
    with open(path, 'rb') as file:
        while block := file.read(2**20):
            crc = zlib.crc32(block, crc)
    return crc
