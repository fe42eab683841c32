"""Position tables: which grid one is for, and tables for another."""
import pytest
import torch

from cae_mm.positions import grid_of, resize_window, sincos_grid, sincos_positions, window_of, window_rows

DIMS = 24


@pytest.mark.parametrize('grid', [(4, 4), (2, 8), (8, 2), (1, 5)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_the_grid_of_a_sine_cosine_table(grid, dtype):
    table = sincos_positions(DIMS, *grid).to(dtype)
    assert sincos_grid(table) == grid_of(table) == grid
    assert sincos_grid(table + 0.1) is None


def test_the_grid_of_another_table():
    assert grid_of(torch.ones(1, 17, DIMS)) == (4, 4)
    with pytest.raises(ValueError, match='16 rows.*grid is unknown'):
        grid_of(torch.ones(1, 16, DIMS))
    assert sincos_grid(torch.ones(1, 17, 6)) is None  # a width that has no such table


def test_windows_are_resized_head_by_head():
    old, new = (4, 3), (6, 8)
    rows = torch.arange(-3., 4).view(7, 1, 1).expand(7, 5, 2) * torch.tensor([1, -10])
    table = torch.cat([rows.flatten(0, 1), torch.tensor([[7., 8]]).expand(3, 2)])
    got = resize_window(table, old, new)
    assert len(got) == window_rows(new) and torch.equal(got[-3:], table[-3:])
    offsets = got[:-3].unflatten(0, (11, 15))
    torch.testing.assert_close(offsets, offsets[:, :1].expand(11, 15, 2))  # rows stayed rows
    torch.testing.assert_close(offsets[..., 1], offsets[..., 0] * -10)
    torch.testing.assert_close(offsets[5], torch.zeros(15, 2))  # and the zero offset zero
    assert (offsets[1:-1, 0, 0].diff() > 0).all()
    torch.testing.assert_close(resize_window(table, old, old), table)


def test_the_window_is_the_patch_grid_or_a_square():
    positions = sincos_positions(DIMS, 4, 3)
    assert window_of(torch.zeros(window_rows((4, 3)), 2), positions) == (4, 3)
    assert window_of(torch.zeros(window_rows((5, 5)), 2), positions) == (5, 5)
    with pytest.raises(ValueError, match=f'of {window_rows((2, 5))} rows is neither of the 4x3 patches'):
        window_of(torch.zeros(window_rows((2, 5)), 2), positions)
