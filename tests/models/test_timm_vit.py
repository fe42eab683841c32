"""Vision transformers of timm as backbones: their features, at every size, and the interface of CAEViT."""
import copy
import pickle

import pytest
import timm
import torch
from mmengine.registry import init_default_scope

from cae_mm.models import CAEViT, TimmViT

SMALL = dict(embed_dim=48, depth=3, num_heads=2)
# One of each family; the smallest there is, made smaller.
FAMILIES = [
    'vit_tiny_patch16_224', 'deit3_small_patch16_224', 'deit_tiny_distilled_patch16_224',
    'beit_base_patch16_224', 'beitv2_base_patch16_224', 'beit3_base_patch16_224',
    'vit_small_patch14_dinov2', 'vit_small_patch14_reg4_dinov2', 'vit_small_patch16_dinov3',
    'eva02_tiny_patch14_224', 'eva_large_patch14_196', 'vit_base_patch16_siglip_224',
    'vit_base_patch16_siglip_gap_224', 'vit_base_patch16_clip_224', 'samvit_base_patch16_224',
    'aimv2_large_patch14_224',
    'vit_pe_core_tiny_patch16_384', 'vit_pe_spatial_tiny_patch16_512', 'vit_base_patch16_radio_v3',
    'vit_base_patch16_rope_reg1_gap_256', 'vit_base_patch16_rope_mixed_ape_224',
    'vit_relpos_small_patch16_224', 'vit_srelpos_small_patch16_224', 'flexivit_small']


def random_weights(backbone):
    """Nothing is zero or one: what is left out would be seen."""
    torch.manual_seed(1)
    for parameter in backbone.vit.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return backbone.eval()


def timms_own(backbone, size):
    """The model that timm makes for an image size, with the weights of the backbone."""
    model = timm.create_model(backbone.name, num_classes=0, **SMALL).eval()
    model.load_state_dict(backbone.vit.state_dict())
    if size != model.patch_embed.img_size and hasattr(model, 'set_input_size'):
        model.set_input_size(size)
    return model


@pytest.mark.parametrize('name', FAMILIES)
def test_features_are_those_of_timm(name):
    """All tokens, maps without class and register tokens, and what its classifier gets; at two sizes."""
    backbone = random_weights(TimmViT(name, out_type='raw', out_indices=(0, 2), **SMALL))
    patch, native = backbone.patch_size, tuple(backbone.vit.patch_embed.img_size)
    for size in (native, (5 * patch, 7 * patch)):
        model, images = timms_own(backbone, size), torch.randn(2, 3, *size)
        with torch.no_grad():
            backbone.out_type = 'raw'
            first, last = backbone(images)
            maps = model.forward_intermediates(images, indices=[0, 2], intermediates_only=True)
            tokens = model.forward_features(images) if 'sam' not in name else maps[1].flatten(2).mT
            torch.testing.assert_close(last, tokens, atol=1e-5, rtol=0)
            patches = first[:, backbone.num_prefix_tokens:].mT.unflatten(2, maps[0].shape[2:])
            torch.testing.assert_close(patches, maps[0], atol=1e-5, rtol=0)
            backbone.out_type = 'featmap'
            assert torch.equal(backbone(images)[0], patches)
            backbone.out_type, backbone.out_indices = 'pooled', [2]
            torch.testing.assert_close(backbone(images)[0], model(images), atol=1e-5, rtol=0)
            backbone.out_indices = [0, 2]


def test_tables_of_another_size_are_trained():
    """Gradients reach the one table there is through what is made of it for the size of an image."""
    backbone = random_weights(TimmViT('beit_base_patch16_224', out_type='avg_featmap', img_size=64,
                                      **SMALL)).train()
    table = next(p for n, p in backbone.named_parameters() if n.endswith('relative_position_bias_table'))
    backbone(torch.randn(2, 3, 48, 80))[0].square().sum().backward()
    gradient, table.grad = table.grad, None
    assert gradient.abs().max() > 0 and gradient.isfinite().all()
    with torch.no_grad():
        table[0, 0] += 1e-2
        above = backbone.eval()(torch.ones(1, 3, 48, 80))[0].sum()
        table[0, 0] -= 2e-2
        below = backbone(torch.ones(1, 3, 48, 80))[0].sum()
        table[0, 0] += 1e-2
    backbone(torch.ones(1, 3, 48, 80))[0].sum().backward()
    torch.testing.assert_close(table.grad[0, 0], (above - below) / 2e-2, atol=1e-3, rtol=0.05)


@pytest.mark.parametrize('size', [32, 48])
@pytest.mark.parametrize('name', [
    'vit_tiny_patch16_224', 'vit_small_patch16_dinov3', 'beit_base_patch16_224'])
def test_checkpointing_changes_no_gradient(name, size):
    gradients = []
    for with_cp in (False, True):
        backbone = TimmViT(name, out_type='raw', img_size=32, with_cp=with_cp, **SMALL)
        random_weights(backbone).train()
        torch.manual_seed(0)
        first, second = (backbone(torch.randn(2, 3, size, 32))[0] for _ in range(2))
        (first.square().sum() + second.sum()).backward()
        gradients.append([p.grad for p in backbone.parameters() if p.grad is not None])
    assert len(gradients[0]) > 10
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize('options', [
    dict(out_type='raw'), dict(out_type='featmap', out_indices=(0, 1), final_norm=False),
    dict(out_type='featmap', final_norm=False), dict(out_type='avg_featmap'), dict(out_type='pooled')])
@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', 'vit_base_patch16_siglip_224',
                                  'beit_base_patch16_224', 'samvit_base_patch16_224'])
def test_all_that_is_trained_has_a_gradient(name, options):
    """DDP waits for all of them."""
    backbone = TimmViT(name, img_size=32, **options, **SMALL)
    outputs = random_weights(backbone).train()(torch.randn(2, 3, 32, 32))
    sum(output.square().sum() for output in outputs).backward()
    without = [name for name, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


def test_class_tokens_of_each_kind():
    backbone = random_weights(TimmViT('vit_small_patch16_dinov3', **SMALL))
    images = torch.randn(1, 3, 64, 64)
    token = backbone(images)[0]
    assert torch.equal(token, timms_own(backbone, (64, 64)).forward_features(images)[:, 0])
    with pytest.raises(ValueError, match="out_type='cls_token': vit_base_patch16_siglip_224 gives featmap"):
        TimmViT('vit_base_patch16_siglip_224', **SMALL)


def test_maps_of_any_size():
    """Padded below and on the right to whole patches."""
    backbone = random_weights(TimmViT('vit_small_patch14_reg4_dinov2', out_type='featmap', patch_size=16,
                                      img_size=64, **SMALL))
    images = torch.randn(1, 3, 50, 33)
    [maps] = backbone(images)
    assert maps.shape == (1, 48, 4, 3) and maps.is_contiguous()
    padded = torch.zeros(1, 3, 64, 48)
    padded[:, :, :50, :33] = images
    assert torch.equal(maps, backbone(padded)[0])
    backbone.out_type = 'raw'
    with pytest.raises(ValueError, match='50x33 pixels has no whole number of patches of 16: .* 64x48'):
        backbone(images)


def test_depths_are_timms_groups():
    backbone = TimmViT('vit_small_patch14_reg4_dinov2', **SMALL)
    depths = {name: backbone.get_layer_depth(f'backbone.{name}', 'backbone.')
              for name, _ in backbone.named_parameters()}
    assert {depth for _, depth in depths.values()} == {5}
    assert depths['vit.reg_token'][0] == depths['vit.patch_embed.proj.weight'][0] == 0
    assert depths['vit.blocks.0.norm1.weight'][0] == 1 and depths['vit.norm.weight'][0] == 3
    assert backbone.get_layer_depth('head.weight', 'backbone.') == (4, 5)
    with pytest.raises(ValueError, match='backbone.vit.nothing is no parameter of vit_small'):
        backbone.get_layer_depth('backbone.vit.nothing', 'backbone.')


def test_frozen_parts_stay_as_they_are():
    backbone = TimmViT('vit_tiny_patch16_224', frozen_stages=2, drop_path_rate=0.5, **SMALL).train()
    trained = {name for name, p in backbone.named_parameters() if p.requires_grad}
    assert trained and all(name.startswith(('vit.blocks.2.', 'vit.norm.')) for name in trained)
    assert not backbone.vit.blocks[1].training and backbone.vit.blocks[2].training
    whole = TimmViT('vit_tiny_patch16_224', frozen_stages=3, **SMALL).train()
    assert not any(p.requires_grad for p in whole.parameters()) and not whole.vit.training


@pytest.mark.parametrize('name, problem', [
    ('vit_base_patch16_dinov4', 'no model .*do you mean vit_base_patch16_dinov3'),
    ('swin_tiny_patch4_window7_224', 'is no plain vision transformer'),
    ('hiera_tiny_224', 'is no plain vision transformer'),
    ('resnet18', 'is no plain vision transformer'),
    ('naflexvit_base_patch16_gap', 'is no plain vision transformer')])
def test_what_is_no_plain_vision_transformer(name, problem):
    with pytest.raises(ValueError, match=problem):
        TimmViT(name)


@pytest.mark.parametrize('options, problem', [
    (dict(out_indices=3), '0..2, and -1 for the last'), (dict(frozen_stages=4), r'is not in -1..3'),
    (dict(out_type='map'), "out_type='map': vit_tiny_patch16_224 gives cls_token"),
    (dict(out_type='pooled', out_indices=0), "which 'pooled' is of"),
    (dict(heads=3), 'unexpected keyword argument')])
def test_wrong_options(options, problem):
    with pytest.raises(ValueError, match=problem):
        TimmViT('vit_tiny_patch16_224', **SMALL, **options)


def test_copies_share_nothing():
    """As those of an averaged model, or another process's."""
    ours = random_weights(TimmViT('beit_base_patch16_224', out_type='raw', img_size=32, **SMALL))
    images = torch.randn(1, 3, 48, 48)
    before = ours(images)[0]
    other = copy.deepcopy(ours)
    with torch.no_grad():
        other.vit.blocks[0].attn.relative_position_bias_table += 1 + torch.arange(3 * 3 + 3)[:, None]
        other.vit.blocks[0].attn.qkv.weight += 1
    assert torch.equal(ours(images)[0], before) and not torch.allclose(other(images)[0], before)
    assert torch.equal(pickle.loads(pickle.dumps(ours))(images)[0], before)


def test_the_interface_of_caevit():
    """Code that takes one takes the other."""
    init_default_scope('mmpretrain')
    ours = CAEViT(arch=dict(embed_dims=48, num_layers=3, num_heads=2), img_size=32)
    theirs = TimmViT('vit_tiny_patch16_224', img_size=32, **SMALL)
    for name in ('embed_dims', 'num_layers', 'patch_size', 'grid_size', 'out_indices', 'out_type',
                 'frozen_stages', 'num_prefix_tokens', 'has_cls_token', 'with_cp'):
        assert getattr(ours, name) == getattr(theirs, name), name
    images = torch.randn(1, 3, 32, 32)
    assert ours.encode(images).shape == theirs.encode(images).shape
    assert [o.shape for o in ours(images)] == [o.shape for o in theirs(images)]
