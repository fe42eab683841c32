"""Position tables: sine-cosine ones, the patch grid that a table is for, and tables for another grid."""
from functools import lru_cache
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor


def sincos_positions(embed_dims: int, height: int, width: int,
                     device: torch.device | None = None) -> Tensor:
    """Fixed 2-D sine-cosine positions: half of the channels encode the row, half the column.

    Args:
        embed_dims (int): channels C, a multiple of 4.
        height (int): rows of the patch grid.
        width (int): columns of the patch grid.
        device (torch.device, optional): where to compute them.

    Returns:
        Tensor: (1, 1 + height * width, C) float32; the first row, of the class token, is zero.

    Raises:
        ValueError: when ``embed_dims`` is not a multiple of 4.
    """
    if embed_dims % 4:
        raise ValueError(f'embed_dims={embed_dims} is not a multiple of 4: sine and cosine of row '
                         f'and column need four equal parts; take {embed_dims // 4 * 4 + 4}')
    steps = torch.arange(embed_dims // 4, dtype=torch.float32, device=device)
    frequencies = 10000 ** (-steps / (embed_dims / 4))
    angles = [torch.arange(side, device=device).unsqueeze(1) * frequencies for side in (height, width)]
    rows, columns = (torch.cat([a.sin(), a.cos()], dim=1) for a in angles)
    table = torch.cat([rows.unsqueeze(1).expand(-1, width, -1), columns.expand(height, -1, -1)], dim=2)
    return F.pad(table.flatten(0, 1), (0, 0, 1, 0)).unsqueeze(0)


@lru_cache(maxsize=8)  # Detection sees hundreds of grids, and a table of ViT-L at 800 x 1333 has 17 MB.
def cached_sincos_positions(embed_dims: int, height: int, width: int, device: torch.device) -> Tensor:
    """``sincos_positions``, kept for the last few grids: only for reading."""
    with torch.inference_mode(False):  # What is kept may serve in training next.
        return sincos_positions(embed_dims, height, width, device)


def recomputed(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """The exact sine-cosine table of a grid, (1, 1 + h * w, C), of the width and type of another."""
    return sincos_positions(table.shape[-1], *grid).to(table)


def is_sincos(table: Tensor, grid: tuple[int, int]) -> bool:
    """Whether a position table (1, 1 + h * w, C) is the sine-cosine one of a patch grid."""
    if table.shape[-1] % 4 or not table.is_floating_point():
        return False
    tolerance = max(1e-5, torch.finfo(table.dtype).eps)
    return torch.allclose(table.float(), recomputed(table, grid).float(), atol=tolerance)


def sincos_grid(table: Tensor) -> tuple[int, int] | None:
    """Rows and columns of the patch grid whose sine-cosine table this is, None for other tables.

    Args:
        table (Tensor): (1, 1 + h * w, C), the class token first.
    """
    patches = table.shape[1] - 1
    grids = ((rows, patches // rows) for rows in range(1, patches + 1) if patches % rows == 0)
    return next((grid for grid in grids if is_sincos(table, grid)), None)


def grid_of(table: Tensor) -> tuple[int, int]:
    """Rows and columns of the patch grid of a position table, a square one unless it tells.

    Raises:
        ValueError: when it does not tell, and is not of a square grid.
    """
    patches = table.shape[1] - 1
    grid = sincos_grid(table) or (isqrt(patches),) * 2
    if grid[0] * grid[1] != patches:
        raise ValueError(f'the position table has {table.shape[1]} rows, which are not those of a class '
                         'token and a square grid, so that its grid is unknown')
    return grid


def resized(table: Tensor, old: tuple[int, int], new: tuple[int, int], mode: str = 'bicubic') -> Tensor:
    """A position table (1, 1 + h * w, C) resized, the class token's row kept."""
    return _interpolated(table, old, mode, size=new)


def resize_positions(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resize a position table bicubically at run time, exactly as the official detection does.

    It enlarges by (h + 0.1) / H, so that rounding never loses a row, and samples at the distances of
    that scale: a little denser than from border to border.

    Args:
        table (Tensor): (1, 1 + H * W, C), the class token, which is kept, first.
        old (tuple[int, int]): H and W, rows and columns of the table's patch grid.
        new (tuple[int, int]): h and w of the grid at hand.

    Returns:
        Tensor: (1, 1 + h * w, C).
    """
    return _interpolated(table, old, 'bicubic', scale_factor=tuple(
        float((side + 0.1) / size) for side, size in zip(new, old, strict=True)))  # tracing has tensors


def _interpolated(table: Tensor, old: tuple[int, int], mode: str, **how) -> Tensor:
    patches = table[:, 1:].transpose(1, 2).unflatten(2, old).float()
    patches = F.interpolate(patches, mode=mode, **how).to(table)
    return torch.cat([table[:, :1], patches.flatten(2).transpose(1, 2)], dim=1)


def window_rows(grid: tuple[int, int]) -> int:
    """Rows of a relative position table: all offsets in the window, and three of the class token."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3


def square_window(table: Tensor) -> int | None:
    """Patches on a side of the window of a relative position table, None when it is not square."""
    side = (isqrt(max(len(table) - 3, 0)) + 1) // 2
    return side if window_rows((side, side)) == len(table) else None


def window_text(table: Tensor) -> str:
    """'14x14 patches' of a relative position table, as far as its number of rows tells."""
    side = square_window(table)
    return f'{side}x{side} patches' if side else f'{len(table)} rows'


def window_of(table: Tensor, positions: Tensor) -> tuple[int, int]:
    """Rows and columns of the window of a relative position table: the patch grid, or a square.

    Raises:
        ValueError: when it is neither that of the position table nor a square one.
    """
    grid, side = grid_of(positions), square_window(table)
    if window_rows(grid) == len(table):
        return grid
    if side is None:
        raise ValueError(f'a relative position table of {window_text(table)} is neither of the '
                         f'{grid[0]}x{grid[1]} patches of the position table nor of a square window')
    return side, side


def resize_window(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resize a relative position table bicubically, head by head, to another window.

    The offsets are stretched with the window, evenly, like the position table. (BEiT's loader and
    mmpretrain's space them geometrically, through a function that SciPy 1.14 removed, and only for
    square windows.) The zero offset and the three rows of the class token are kept.

    Args:
        table (Tensor): ((2h - 1)(2w - 1) + 3, heads).
        old (tuple[int, int]): h and w of the table's window.
        new (tuple[int, int]): of the other window.
    """
    (rows, columns), size = ([2 * side - 1 for side in window] for window in (old, new))
    offsets = table[:-3].float().unflatten(0, (rows, columns)).permute(2, 0, 1).unsqueeze(0)
    offsets = F.interpolate(offsets, size, mode='bicubic', align_corners=False).to(table)
    return torch.cat([offsets[0].flatten(1).T, table[-3:]])
