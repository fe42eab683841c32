"""Work that the ranks of a distributed run share, and errors that end it on all of them."""
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_world_size


class RankError(RuntimeError):
    """What went wrong on one rank or on several, raised on all."""


def gather(value: Any = None, error: str | None = None) -> list:
    """What each rank brings, known to all of them.

    Args:
        value: of this rank; anything that can be pickled, tensors as arrays.
        error (str, optional): why this rank cannot go on.

    Raises:
        RankError: when a rank has an error, or has left :func:`together` with one.
    """
    found, ranks = all_gather_object((value, error)), {}
    for rank, (_, error) in enumerate(found):
        if error is not None:
            ranks.setdefault(error, []).append(str(rank))
    if ranks:
        raise RankError('; '.join(f'rank {", ".join(names)}: {error}' for error, names in ranks.items()))
    return [value for value, _ in found]


@contextmanager
def together() -> Iterator[None]:
    """Let an error on one rank end the block on all ranks, so that none waits for one that has left.

    In the block the ranks meet in :func:`gather` alone; another collective may follow one at once. They
    meet after each batch or the like, so none waits longer than for one batch of another rank: far less
    than the time after which NCCL aborts a run.

    Raises:
        RankError: when there are several ranks; a single one raises what went wrong.
    """
    try:
        yield
        gather()
    except RankError:
        raise
    except Exception as error:
        if get_world_size() == 1:
            raise
        traceback.clear_frames(error.__traceback__)  # What filled the memory goes before the ranks meet.
        torch.cuda.empty_cache()
        gather(error=f'{type(error).__name__}: {error}')
