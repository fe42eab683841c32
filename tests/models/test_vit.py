"""The backbone: shapes, sizes, conventions and errors."""
import copy

import pytest
import torch
import torch.nn.functional as F

from cae_mm.models import CAEViT
from cae_mm.positions import cached_sincos_positions, sincos_positions

ARCH = dict(embed_dims=32, num_layers=3, num_heads=4)


def vit(**kwargs):
    torch.manual_seed(0)
    return CAEViT(**dict(dict(arch=ARCH, img_size=32, patch_size=8), **kwargs)).eval()


@pytest.mark.parametrize('out_type, shape', [
    ('cls_token', (2, 32)), ('featmap', (2, 32, 4, 6)), ('avg_featmap', (2, 32)),
    ('raw', (2, 25, 32))])
def test_out_types_at_another_size(out_type, shape):
    outputs = vit(out_type=out_type, out_indices=(0, 2))(torch.randn(2, 3, 32, 48))
    assert [tuple(out.shape) for out in outputs] == [shape, shape]


def test_outputs_are_those_of_encode():
    model, images = vit(out_type='raw'), torch.randn(2, 3, 32, 32)
    encoded = model.encode(images)
    torch.testing.assert_close(model(images)[0], encoded)
    model.out_type = 'cls_token'
    torch.testing.assert_close(model(images)[0], encoded[:, 0])
    # The mean is taken before the norm, as in the official fine-tuning.
    model.out_type = 'avg_featmap'
    hidden = model.embed(images)
    for block in model.blocks:
        hidden = block(hidden)
    torch.testing.assert_close(model(images)[0], model.norm(hidden[:, 1:].mean(1)))
    model.out_type, model.norm = 'featmap', torch.nn.Identity()
    torch.testing.assert_close(model(images)[0].flatten(2).transpose(1, 2), hidden[:, 1:])


def test_keeping_patches_is_gathering_them():
    """What is kept does not depend on what is not, and the order is that of the index."""
    model, images = vit(), torch.randn(2, 3, 32, 32)
    keep = torch.tensor([[1, 5, 7], [0, 2, 15]])
    torch.testing.assert_close(model.embed(images, keep)[:, 1:],
                               model.embed(images)[:, 1:].gather(
                                   1, keep[..., None].expand(-1, -1, 32)))
    changed = images.clone()
    changed[0, :, :8, :8] = 9  # patch 0 is not kept in the first image
    torch.testing.assert_close(model.encode(changed, keep), model.encode(images, keep))


def test_patches_are_embedded_as_by_the_convolution():
    model, images = vit(), torch.randn(2, 3, 32, 48)
    expected = model.patch_embed(images).flatten(2).transpose(1, 2)
    ours = model.embed(images)[:, 1:] - model.positions((4, 6))[:, 1:]
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_positions_follow_rows_and_columns():
    table = sincos_positions(16, 2, 3)[0]
    assert table[0].abs().max() == 0
    patches = table[1:].reshape(2, 3, 16)
    assert torch.equal(patches[1, :, :8], patches[1, :1, :8].expand(3, -1))  # the row half
    assert torch.equal(patches[:, 2, 8:], patches[:1, 2, 8:].expand(2, -1))  # the column half
    assert not torch.equal(patches[0, 0], patches[1, 0])


def test_positions_of_other_grids_are_exact_and_kept_for_a_few():
    model = vit()
    keys = model.state_dict().keys()
    for columns in range(5, 25):
        assert torch.equal(model.positions((3, columns)), sincos_positions(32, 3, columns))
    assert copy.deepcopy(model).positions((3, 24)) is model.positions((3, 24))
    assert cached_sincos_positions.cache_info().currsize == 8
    assert model.state_dict().keys() == keys
    assert model.bfloat16().positions((3, 24)).dtype == torch.bfloat16


def test_positions_kept_from_inference_serve_in_training():
    model, images = vit(), torch.randn(1, 3, 24, 56)
    with torch.inference_mode():
        want = model(images)[0]
    got = model(images)[0]
    got.sum().backward()
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize('pos_mode', ['recompute', 'resize'])
def test_other_sizes_compile_without_a_break(pos_mode):
    torch.compiler.reset()
    model = vit(pos_mode=pos_mode, out_type='featmap', out_indices=(0, 2))
    compiled = torch.compile(model, backend='eager', fullgraph=True)
    for size in ((40, 24), (30, 41), (32, 32)):
        images = torch.randn(1, 3, *size)
        for got, want in zip(compiled(images), model(images), strict=True):
            torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('pos_mode', ['recompute', 'resize'])
def test_other_sizes_on_the_meta_device(pos_mode):
    with torch.device('meta'):
        model = vit(pos_mode=pos_mode, out_type='featmap')
        assert model(torch.empty(2, 3, 40, 64))[0].shape == (2, 32, 5, 8)


def test_resized_positions_lie_between_those_of_the_table():
    model = vit(img_size=(32, 48), pos_mode='resize')
    rows = torch.arange(4.).view(4, 1).expand(4, 6).reshape(1, 24, 1)
    model.pos_embed[:, 1:] = rows
    model.pos_embed[:, 0] = 7
    table = model.positions((9, 3))
    assert table.shape == (1, 28, 32) and (table[:, 0] == 7).all()
    grid = table[0, 1:].unflatten(0, (9, 3))
    torch.testing.assert_close(grid, grid[:, :1, :1].expand(9, 3, 32))  # rows stayed rows
    assert (grid[:, 0, 0].diff() > 0).all() and grid[4, 0, 0] == pytest.approx(1.5, abs=0.05)


def test_a_learned_table_is_not_replaced_silently():
    state = vit().state_dict() | dict(pos_embed=torch.randn(1, 17, 32))
    own, other = torch.randn(1, 3, 32, 32), torch.randn(1, 3, 40, 32)
    model = vit()
    model.load_state_dict(state)
    model(own)
    with pytest.raises(ValueError, match=r"of \(4, 4\) patches and cannot be .* \(5, 4\): .*'resize'"):
        model(other)
    model.load_state_dict(vit().state_dict())
    model(other)
    model = vit(pos_mode='resize')
    model.load_state_dict(state)
    model(other)


def test_maps_of_any_size_are_those_of_padded_images():
    model, images = vit(out_type='featmap'), torch.randn(2, 3, 30, 41)
    maps = model(images)[0]
    assert maps.shape == (2, 32, 4, 6)
    assert maps.is_contiguous()  # mmcv's RoIAlign reads others wrongly
    torch.testing.assert_close(maps, model(F.pad(images, (0, 7, 0, 2)))[0])


@pytest.mark.parametrize('bfloat16', [False, True])
def test_activation_checkpointing_changes_nothing(bfloat16):
    results, calls = [], []
    for with_cp in (False, True):
        model = vit(drop_path_rate=0.5, use_rel_pos_bias=True, out_type='featmap', out_indices=(0, 2),
                    with_cp=with_cp).train()
        calls.append(0)
        model.blocks[1].mlp.register_forward_hook(lambda *_: calls.append(calls.pop() + 1))
        torch.manual_seed(1)
        images = torch.randn(8, 3, 32, 32, requires_grad=True)
        with torch.autocast('cpu', torch.bfloat16, enabled=bfloat16):
            outputs = model(images)
        sum(out.float().square().sum() for out in outputs).backward()
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results.append((outputs, images.grad, grads))
    assert calls == [1, 2]  # the branches of block 1 were computed again
    torch.testing.assert_close(*results, atol=0, rtol=0)
    with torch.no_grad():
        model(images)
    assert calls == [1, 3]


def test_relative_position_bias_starts_at_zero_and_keeps_to_its_window():
    plain, biased, images = vit(), vit(use_rel_pos_bias=True), torch.randn(1, 3, 32, 32)
    biased.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(plain(images)[0], biased(images)[0])
    torch.nn.init.normal_(biased.blocks[0].attn.rel_pos.relative_position_bias_table)
    assert not torch.allclose(plain(images)[0], biased(images)[0], atol=1e-3)
    with pytest.raises(ValueError, match=r'for 32x32 pixels, .* 48x48: .* img_size=\(48, 48\)'):
        biased(torch.randn(1, 3, 48, 48))
    with pytest.raises(ValueError, match='for 32x32 pixels, the image has 30x32'):
        vit(use_rel_pos_bias=True, out_type='featmap')(torch.randn(1, 3, 30, 32))


def test_frozen_stages_stay_frozen_in_training_mode():
    model = vit(frozen_stages=2, drop_path_rate=0.5).train()
    trainable = {name.rsplit('.', 1)[0].split('.')[0] + name.split('.')[1]
                 for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {'blocks2', 'normweight', 'normbias'}
    assert not model.blocks[1].training and model.blocks[2].training
    everything = vit(frozen_stages=3)
    assert not any(p.requires_grad for p in everything.parameters())


def test_layer_depth():
    model = vit()
    depths = [model.get_layer_depth(f'backbone.{name}', 'backbone.') for name in (
        'cls_token', 'patch_embed.weight', 'blocks.0.norm1.weight', 'blocks.2.gamma_1',
        'norm.weight')]
    assert depths == [(0, 5), (0, 5), (1, 5), (3, 5), (4, 5)]
    assert model.get_layer_depth('head.weight', 'backbone.') == (4, 5)


def test_drop_path_rises_linearly():
    rates = [block.drop_path.drop_prob for block in vit(drop_path_rate=0.2).blocks]
    assert rates == pytest.approx([0, 0.1, 0.2])


def test_initialisation_has_the_official_statistics(golden):
    import json
    stats = json.loads((golden / 'init_stats.json').read_text())['cae_base_as_the_scripts_build_it']
    torch.manual_seed(0)
    model = CAEViT(dict(embed_dims=768, num_layers=1, num_heads=12))
    for ours, official in (
            ('patch_embed.weight', 'patch_embed.proj.weight'), ('cls_token', 'cls_token'),
            ('blocks.0.attn.qkv.weight',) * 2, ('blocks.0.attn.proj.weight',) * 2,
            ('blocks.0.mlp.fc1.weight',) * 2, ('blocks.0.mlp.fc2.weight',) * 2,
            ('blocks.0.attn.q_bias',) * 2, ('blocks.0.gamma_1',) * 2, ('norm.weight',) * 2):
        shape, mean, std, low, high = stats[f'encoder.{official}']
        p = model.get_parameter(ours).detach()
        assert list(p.shape) == shape
        assert [p.mean().item(), p.std().item(), p.min().item(), p.max().item()] == pytest.approx(
            [mean, std, low, high], abs=1e-3), ours


@pytest.mark.parametrize('kwargs, message', [
    (dict(img_size=36), 'resize or pad to 40x40'),
    (dict(arch='enormous'), 'enormous'),
    (dict(arch=dict(embed_dims=32)), 'num_layers'),
    (dict(arch=dict(embed_dims=32, num_layers=1, num_heads=5)), 'do not split into 5 heads'),
    (dict(arch=dict(embed_dims=30, num_layers=1, num_heads=5)), 'multiple of 4'),
    (dict(out_type='cls'), 'avg_featmap'),
    (dict(out_indices=(0, 3)), '0..2'),
    (dict(frozen_stages=4), 'not in -1..3'),
    (dict(pos_mode='bicubic'), 'recompute, resize'),
])
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        vit(**kwargs)


def test_an_image_of_no_whole_patches_is_refused():
    with pytest.raises(ValueError, match='30x32.*32x32'):
        vit()(torch.randn(1, 3, 30, 32))
