"""Position tables of encoders: which patch grid they are for, and others for another grid."""
from math import isqrt

import torch
import torch.nn.functional as F
from mmpretrain.models.backbones.beit import RelativePositionBias
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor

TABLE = 'attn.rel_pos.relative_position_bias_table'


def recomputed(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """The exact sine-cosine table of a grid, (1, 1 + h * w, C), of the width and type of another."""
    from cae_mm.models.layers import sincos_positions  # the models import this package

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


def check_class_row(table: Tensor) -> None:
    """Refuse a position table that has a square grid of rows and none for the class token."""
    rows = table.shape[1]
    if isqrt(rows) ** 2 == rows and isqrt(rows - 1) ** 2 != rows - 1 and sincos_grid(table) is None:
        raise ValueError(f'the position table has {rows} rows, {isqrt(rows)}x{isqrt(rows)} patches and '
                         "none for the class token (timm's no_embed_class): ours has one")


def tables_of(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """The relative position tables of the encoder, by our names."""
    return {name: value for name, value in ours.items() if name.endswith(TABLE)}


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


def resized(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """A position table (1, 1 + h * w, C) resized bicubically, the class token's row kept."""
    return resize_pos_embed(table.float(), old, new, 'bicubic', 1).to(table)


def without_positions(ours: dict[str, Tensor]) -> bool:
    """Give an encoder that has only relative positions, in a square window, a table of zeros."""
    side = next(map(square_window, tables_of(ours).values()), None)
    token = ours.get('backbone.cls_token')
    if side is None or token is None:
        return False
    ours['backbone.pos_embed'] = token.new_zeros(1, 1 + side * side, token.shape[-1])
    return True


def relative_index(ours: dict[str, Tensor]) -> Tensor | None:
    """(1 + N, 1 + N) int64: rows of the relative position tables for each pair of tokens.

    None for a window that is not square: the numbers of rows do not tell height from width.

    Raises:
        ValueError: when the position table is of another grid.
    """
    tables = tables_of(ours)
    sides = set(map(square_window, tables.values()))
    if sides <= {None}:
        return None
    grid = grid_of(ours['backbone.pos_embed'])
    for name, table in tables.items():
        if len(table) != window_rows(grid):
            raise ValueError(f'{name} is for a window of {window_text(table)}, the position table for '
                             f'{grid[0]}x{grid[1]}: they must be of the same grid')
    return RelativePositionBias(grid, 1).relative_position_index


def fit_positions(ours: dict[str, Tensor], img_size: tuple[int, int], how: str | None,
                  report: list[str]) -> None:
    """Replace the position tables by those for images of another size.

    Args:
        ours (dict[str, Tensor]): with our names; changed in place.
        img_size (tuple[int, int]): height and width, in pixels.
        how (str, optional): 'recompute' gives the exact sine-cosine tables of the new grid, 'resize'
            the bicubic enlargement of those in the checkpoint; by default sine-cosine tables are
            recomputed and others resized.
        report (list[str]): what happened is appended.

    Raises:
        ValueError: when the size is not a multiple of the patch, the encoder has relative position
            tables of another window, or the grid of a table is unknown.
    """
    patch = ours['backbone.patch_embed.weight'].shape[-2:]
    if how not in (None, 'recompute', 'resize'):
        raise ValueError(f'positions={how!r}: choose recompute or resize')
    if any(side < p or side % p for side, p in zip(img_size, patch, strict=True)):
        raise ValueError(f'images of {img_size[0]}x{img_size[1]} pixels have no whole number of patches '
                         f'of {patch[0]}x{patch[1]}')
    grid = img_size[0] // patch[0], img_size[1] // patch[1]
    for name, table in tables_of(ours).items():
        if len(table) != window_rows(grid):
            raise ValueError(f'{name} is for a window of {window_text(table)}, the new size has '
                             f'{grid[0]}x{grid[1]} patches: fine-tune at the new size from a checkpoint '
                             'without relative positions, or resize them when they are loaded, with '
                             'resize_rel_pos=True in init_cfg')
    for name in [name for name in ours if name.endswith('pos_embed')]:
        table, old = ours[name], grid_of(ours[name])
        if old == grid:
            continue
        recompute = how == 'recompute' or how is None and sincos_grid(table) is not None
        ours[name] = recomputed(table, grid) if recompute else resized(table, old, grid)
        report.append(f'{name} {"recomputed" if recompute else "resized"} from {old[0]}x{old[1]} to '
                      f'{grid[0]}x{grid[1]} patches')
