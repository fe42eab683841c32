"""The feature pyramid: scales, norms and errors; its numbers are in the parity tests."""
import pytest
import torch
from mmpretrain.registry import MODELS

from cae_mm.models import CAEViT, SimpleFeaturePyramid, ViTFeaturePyramid


def taps(*shape, number=4):
    torch.manual_seed(0)
    return tuple(torch.randn(2, 16, *shape) for _ in range(number))


def test_four_scales_of_four_taps():
    inputs = taps(6, 7)
    neck = ViTFeaturePyramid(16)
    outputs = neck(inputs)
    assert [tuple(out.shape) for out in outputs] == [
        (2, 16, 24, 28), (2, 16, 12, 14), (2, 16, 6, 7), (2, 16, 3, 3)]
    # Each scale comes from its own tap.
    for i in range(4):
        changed = neck([x + (j == i) for j, x in enumerate(inputs)])
        assert [torch.equal(a, b) for a, b in zip(changed, outputs, strict=True)] == [
            j != i for j in range(4)]


@pytest.mark.parametrize('norm_cfg, kind', [
    (None, torch.nn.SyncBatchNorm), (dict(type='BN'), torch.nn.BatchNorm2d),
    (dict(type='GN', num_groups=4), torch.nn.GroupNorm), (dict(type='LN2d'), torch.nn.LayerNorm)])
def test_the_norm_is_chosen(norm_cfg, kind):
    neck = MODELS.build(dict(type='ViTFeaturePyramid', in_channels=16, norm_cfg=norm_cfg))
    assert isinstance(neck.upsample4[1], kind)
    loss = sum(out.square().mean() for out in neck(taps(2, 2)))
    loss.backward()
    assert all(p.grad is not None for p in neck.parameters())


def test_it_stands_on_the_backbone():
    backbone = CAEViT(dict(embed_dims=16, num_layers=4, num_heads=2), 32, 8, out_type='featmap',
                      out_indices=(0, 1, 2, 3), final_norm=False)
    outputs = ViTFeaturePyramid(16)(backbone(torch.randn(2, 3, 30, 41)))
    assert [tuple(out.shape[2:]) for out in outputs] == [(16, 24), (8, 12), (4, 6), (2, 3)]


@pytest.mark.parametrize('inputs, message', [
    (taps(2, 2, number=1), '1 inputs of shape'),
    (taps(number=4), r"4 inputs of shape \(2, 16\).*out_type='featmap'")])
def test_other_inputs_are_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        ViTFeaturePyramid(16)(inputs)


@pytest.mark.parametrize('norm_cfg, kind', [
    (None, torch.nn.LayerNorm), (dict(type='GN', num_groups=2), torch.nn.GroupNorm)])
def test_five_scales_of_one_map(norm_cfg, kind):
    neck = MODELS.build(dict(
        type='SimpleFeaturePyramid', in_channels=16, out_channels=6, norm_cfg=norm_cfg))
    outputs = neck(taps(6, 7, number=1))
    assert [tuple(out.shape) for out in outputs] == [
        (2, 6, 24, 28), (2, 6, 12, 14), (2, 6, 6, 7), (2, 6, 3, 3), (2, 6, 2, 2)]
    assert torch.equal(outputs[4], outputs[3][:, :, ::2, ::2])
    assert sum(isinstance(module, kind) for module in neck.modules()) == 2 * 4 + 1
    sum(out.square().mean() for out in outputs).backward()
    assert all(p.grad is not None for p in neck.parameters())


def test_scales_see_what_lies_below_them():
    """Each place of a scale follows the map where it stands, and no other but its neighbours'."""
    neck, [x] = SimpleFeaturePyramid(16, 6), taps(8, 8, number=1)
    with torch.no_grad():
        before, after = neck([x]), neck([x + torch.zeros(8, 8).index_put((torch.tensor(4), torch.tensor(4)),
                                                                         torch.tensor(1.))])
    for stride, first, second in zip((4, 2, 1, 0.5), before, after, strict=False):
        changed = (first != second).any(1)[0].nonzero()
        least, most = changed.min(0).values.tolist(), changed.max(0).values.tolist()
        assert least == [int(4 * stride) - 1] * 2 and most == [int(4 * stride + max(stride, 1) - 1) + 1] * 2


def test_one_map_is_needed():
    with pytest.raises(ValueError, match="4 inputs of shape.*out_indices=-1"):
        SimpleFeaturePyramid(16, 6)(taps(2, 2))
