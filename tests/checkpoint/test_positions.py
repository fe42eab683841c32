"""Position tables for another image size, and what grid one is for."""
import pytest
import torch
import torch.nn.functional as F

from cae_mm.checkpoint.convert import convert
from cae_mm.checkpoint.positions import grid_of, resize_window, sincos_grid, window_of, window_rows
from cae_mm.models.layers import sincos_positions

from .conftest import DIMS, PATCH


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


def test_recomputed_positions_are_those_of_a_new_encoder(state):
    report = []
    ours = state('pre-training')
    got = convert(ours, img_size=(48, 16), report=report)
    for part in ('backbone', 'neck', 'head'):
        assert torch.equal(got[f'{part}.pos_embed'], sincos_positions(DIMS, 48 // PATCH, 16 // PATCH))
    assert 'head.pos_embed recomputed from 4x4 to 6x2 patches' in report
    unchanged = convert(ours, img_size=(32, 32), positions='resize', report=report[:0])
    assert all(torch.equal(unchanged[name], value) for name, value in ours.items())


def test_resized_positions_are_interpolated(state):
    ours, report = state('encoder'), []
    ours['backbone.pos_embed'] = table = torch.randn(1, 17, DIMS)
    by_default = convert(ours, img_size=(64, 48), report=report)['backbone.pos_embed']
    assert 'backbone.pos_embed resized from 4x4 to 8x6 patches' in report
    patches = table[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    want = F.interpolate(patches, (8, 6), mode='bicubic').flatten(2).transpose(1, 2)
    torch.testing.assert_close(by_default, torch.cat([table[:, :1], want], 1))
    # Both ways are there for both tables when they are asked for.
    assert torch.equal(convert(ours, img_size=(64, 48), positions='recompute')['backbone.pos_embed'],
                       sincos_positions(DIMS, 8, 6))
    resized = convert(state('encoder'), img_size=(64, 64), positions='resize')['backbone.pos_embed']
    exact = sincos_positions(DIMS, 8, 8)
    assert resized.shape == exact.shape and not torch.allclose(resized, exact, atol=0.01)


def test_sizes_that_do_not_fit_are_refused(state):
    for size in ((36, 32), (0, 32)):
        with pytest.raises(ValueError, match=f'{size[0]}x32 pixels have no whole number of patches of 8x8'):
            convert(state('encoder'), img_size=size)
    with pytest.raises(ValueError, match="positions='crop': choose recompute or resize"):
        convert(state('encoder'), img_size=(64, 64), positions='crop')
    with pytest.raises(ValueError, match='window of 4x4 patches, the new size has 8x8'):
        convert(state('relative'), img_size=(64, 64))


def test_tables_of_two_grids_are_refused(state):
    ours = state('relative')
    ours['backbone.pos_embed'] = sincos_positions(DIMS, 2, 8)
    with pytest.raises(ValueError, match='window of 4x4 patches, the position table for 2x8'):
        convert(ours, target='official')


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
