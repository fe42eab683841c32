"""The position tables in an encoder's checkpoint: found, checked, and fitted to another image size."""
from math import isqrt

from mmpretrain.models.backbones.beit import RelativePositionBias
from torch import Tensor

from cae_mm.checkpoint.names import take_timm
from cae_mm.positions import (
    grid_of,
    recomputed,
    resize_window,
    resized,
    sincos_grid,
    square_window,
    window_of,
    window_rows,
    window_text,
)

TABLE = 'attn.rel_pos.relative_position_bias_table'


def check_class_row(table: Tensor) -> None:
    """Refuse a position table that has a square grid of rows and none for the class token."""
    rows = table.shape[1]
    if isqrt(rows) ** 2 == rows and isqrt(rows - 1) ** 2 != rows - 1 and sincos_grid(table) is None:
        raise ValueError(f'the position table has {rows} rows, {isqrt(rows)}x{isqrt(rows)} patches and '
                         "none for the class token (timm's no_embed_class): ours has one. "
                         f"{take_timm('deit3')}, or '*siglip*'")


def tables_of(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """The relative position tables of the encoder, by our names."""
    return {name: value for name, value in ours.items() if name.endswith(TABLE)}


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
    """Replace the position tables, in place, by those for an ``img_size`` (height, width) in pixels.

    'recompute' gives the exact sine-cosine tables of the new grid, 'resize' their bicubic enlargement; by
    default sine-cosine tables are recomputed and others, and relative ones, resized. A ValueError when the
    size is not a multiple of the patch, or the grid of a table is unknown.
    """
    patch = ours['backbone.patch_embed.weight'].shape[-2:]
    if how not in (None, 'recompute', 'resize'):
        raise ValueError(f'positions={how!r}: choose recompute or resize')
    if any(side < p or side % p for side, p in zip(img_size, patch, strict=True)):
        raise ValueError(f'images of {img_size[0]}x{img_size[1]} pixels have no whole number of patches '
                         f'of {patch[0]}x{patch[1]}')
    grid = img_size[0] // patch[0], img_size[1] // patch[1]
    for name, table in tables_of(ours).items():
        if (old := window_of(table, ours['backbone.pos_embed'])) != grid:
            ours[name] = resize_window(table, old, grid)
            report.append(f'{name} resized from {old[0]}x{old[1]} to {grid[0]}x{grid[1]} patches')
    for name in [name for name in ours if name.endswith('pos_embed')]:
        table, old = ours[name], grid_of(ours[name])
        if old == grid:
            continue
        recompute = how == 'recompute' or how is None and sincos_grid(table) is not None
        ours[name] = recomputed(table, grid) if recompute else resized(table, old, grid)
        report.append(f'{name} {"recomputed" if recompute else "resized"} from {old[0]}x{old[1]} to '
                      f'{grid[0]}x{grid[1]} patches')
