"""The position tables of a checkpoint for another image size."""
import pytest
import torch
import torch.nn.functional as F

from cae_mm.checkpoint.convert import convert
from cae_mm.positions import resize_window, sincos_positions

from .conftest import DIMS, KINDS, PATCH


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


def test_tables_of_two_grids_are_refused(state):
    ours = state('relative')
    ours['backbone.pos_embed'] = sincos_positions(DIMS, 2, 8)
    with pytest.raises(ValueError, match='window of 4x4 patches, the position table for 2x8'):
        convert(ours, target='official')


def test_a_fine_tuned_model_for_larger_images(state, make):
    """Whole, with the head, and its relative position tables as the encoder's loader resizes them."""
    ours, report = state('relative'), []
    got = convert(ours, img_size=(64, 64), report=report)
    larger = make('relative', backbone=dict(KINDS['relative']['backbone'], img_size=64))
    larger.load_state_dict(got)
    name = 'backbone.blocks.1.attn.rel_pos.relative_position_bias_table'
    assert torch.equal(got[name], resize_window(ours[name], (4, 4), (8, 8)))
    assert torch.equal(got['head.fc.weight'], ours['head.fc.weight'])
    assert f'{name} resized from 4x4 to 8x8 patches' in report
    assert torch.isfinite(larger(torch.randn(1, 3, 64, 64))[0]).all()
