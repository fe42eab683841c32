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
    """What each rank brings, known to all of them; a RankError when one has an error, or left ``together``.

    ``value`` is anything that can be pickled, tensors as arrays; ``error``, why this rank cannot go on.
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

    In the block the ranks meet in :func:`gather` alone, after each batch or the like, so that none waits
    longer than for one batch of another: far less than the time after which NCCL aborts a run. A RankError
    when there are several ranks; a single one raises what went wrong.
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
