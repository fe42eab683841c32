"""The backbone: shapes, sizes, conventions and errors."""
import pytest
import torch

from cae_mm.models import CAEViT
from cae_mm.models.layers import sincos_positions
from cae_mm.models.vit import ARCHITECTURES

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


def test_relative_position_bias_starts_at_zero_and_keeps_to_its_window():
    plain, biased, images = vit(), vit(use_rel_pos_bias=True), torch.randn(1, 3, 32, 32)
    biased.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(plain(images)[0], biased(images)[0])
    torch.nn.init.normal_(biased.blocks[0].attn.rel_pos.relative_position_bias_table)
    assert not torch.allclose(plain(images)[0], biased(images)[0], atol=1e-3)
    with pytest.raises(ValueError, match='img_size='):
        biased(torch.randn(1, 3, 48, 48))


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


@pytest.mark.parametrize('arch', ARCHITECTURES)
def test_architectures_build(arch):
    with torch.device('meta'):
        model = CAEViT(arch)
    dims, layers, heads = ARCHITECTURES[arch]
    assert (model.embed_dims, len(model.blocks), model.blocks[0].attn.num_heads) == (
        dims, layers, heads)


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
    (dict(arch='huge'), 'huge'),
    (dict(arch=dict(embed_dims=32)), 'num_layers'),
    (dict(arch=dict(embed_dims=32, num_layers=1, num_heads=5)), 'do not split into 5 heads'),
    (dict(arch=dict(embed_dims=30, num_layers=1, num_heads=5)), 'multiple of 4'),
    (dict(out_type='cls'), 'avg_featmap'),
    (dict(out_indices=(0, 3)), '0..2'),
    (dict(frozen_stages=4), 'not in -1..3'),
])
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        vit(**kwargs)


def test_an_image_of_no_whole_patches_is_refused():
    with pytest.raises(ValueError, match='30x32.*32x32'):
        vit()(torch.randn(1, 3, 30, 32))
