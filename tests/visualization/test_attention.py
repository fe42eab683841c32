"""Attention maps are the weights with which the models add values."""
import pytest
import torch
from mmengine.config import Config

from cae_mm.models import AttentiveProbeHead, TimmViT
from cae_mm.models.layers import attention_weights
from cae_mm.visualization import class_attention, load_probe, patch_features, probe_attention


@pytest.mark.parametrize('use_rel_pos_bias', [False, True])
def test_weights_reproduce_the_fused_attention(make_backbone, use_rel_pos_bias):
    attn = make_backbone(use_rel_pos_bias=use_rel_pos_bias).blocks[1].attn
    x = torch.randn(2, 7, 16)
    q, k, values = attn.project(x)
    weights = attention_weights(q, k, attn.rel_pos() if use_rel_pos_bias else None)
    assert weights.shape == (2, 2, 7, 7)
    output = attn.proj((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(output, attn(x))
    assert weights.std() > 0.02


@pytest.mark.parametrize('layer, index', [(0, 0), (1, 1), (2, 2), (-1, 2)])
def test_class_token_of_each_block(make_backbone, images, layer, index):
    backbone = make_backbone(use_rel_pos_bias=True).train()
    maps = class_attention(backbone, images, layer)
    assert backbone.training and maps.shape == (2, 2, 2, 3)
    backbone.eval()
    x = backbone.embed(images)
    for block in backbone.blocks[:index]:
        x = block(x)
    block = backbone.blocks[index]
    q, k, _ = block.attn.project(block.norm1(x))
    expected = attention_weights(q, k, block.attn.rel_pos())[:, :, 0, 1:]
    torch.testing.assert_close(maps[..., 1, 0], expected[..., 3])  # the second row begins with patch 3
    torch.testing.assert_close(maps.flatten(2), expected)


@pytest.mark.parametrize('name', [
    'vit_tiny_patch16_224', 'vit_small_patch16_dinov3', 'beit_base_patch16_224'])
def test_class_token_of_timms_models(name):
    """Of a block they give what is added for the class token, and registers are no patches."""
    torch.manual_seed(0)
    backbone = TimmViT(name, img_size=64, embed_dim=24, depth=3, num_heads=2)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    images, block = torch.randn(2, 3, 64, 64), backbone.vit.blocks[1]
    with torch.no_grad():
        maps = class_attention(backbone.train(), images, 1)
        assert backbone.training and block.attn.fused_attn and maps.shape == (2, 2, 4, 4)
        assert 0 < maps.sum((2, 3)).min() and maps.sum((2, 3)).max() < 1 and maps.std() > 0.01
        assert torch.equal(maps, class_attention(backbone, images, 1))
        if name == 'vit_tiny_patch16_224':
            [x], _ = backbone.eval().tokens(images, [0])
            q, k, _ = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, 2, 12)).permute(2, 0, 3, 1, 4)
            expected = (q @ k.mT / 12**0.5).softmax(-1)[:, :, 0, 1:]
            torch.testing.assert_close(maps.flatten(2), expected)
    with pytest.raises(ValueError, match=r'layer=3.*0\.\.2'):
        class_attention(backbone, images, 3)


@pytest.mark.parametrize('name', ['vit_small_patch16_dinov3', 'samvit_base_patch16_224'])
def test_patches_of_timms_models(name):
    backbone = TimmViT(name, img_size=64, embed_dim=24, depth=3, num_heads=2, out_type='featmap')
    images = torch.randn(1, 3, 48, 80)
    with torch.no_grad():
        assert torch.equal(patch_features(backbone, images), backbone.eval()(images)[0].permute(0, 2, 3, 1))


def test_any_size_without_a_relative_bias(make_backbone):
    assert class_attention(make_backbone(), torch.randn(1, 3, 20, 8)).shape == (1, 2, 5, 2)


@pytest.mark.parametrize('settings, layer, size, message', [
    ({}, 3, (8, 12), r'layer=3.*0\.\.2'),
    ({}, -2, (8, 12), 'layer=-2'),
    ({}, 0, (8, 13), '8x13'),
    (dict(use_rel_pos_bias=True), 0, (8, 16), 'relative position bias'),
    (dict(with_cls_token=False, out_type='raw'), 0, (8, 12), 'no class token'),
])
def test_what_has_no_map(make_backbone, settings, layer, size, message):
    with pytest.raises(ValueError, match=message):
        class_attention(make_backbone(**settings), torch.randn(1, 3, *size), layer)


def test_query_of_a_trained_probe(make_backbone, images, tmp_path):
    backbone = make_backbone(out_type='raw').eval()
    trained = AttentiveProbeHead(num_classes=4, in_channels=16, num_heads=2)
    for parameter in trained.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    weights = {f'head.{k}': v for k, v in trained.state_dict().items()}
    torch.save({'state_dict': weights | {'backbone.x': torch.zeros(1)}}, tmp_path / 'a.pth')
    head = dict(type='mmpretrain.AttentiveProbeHead', num_classes=9, in_channels=16, num_heads=2)
    probe = load_probe(Config(dict(model=dict(head=head))), tmp_path / 'a.pth')
    expected = trained.attention(backbone.encode(images))[..., 1:]
    torch.testing.assert_close(probe_attention(probe, backbone, images).flatten(2), expected)

    weights.pop('head.query_token')
    torch.save({'state_dict': weights}, tmp_path / 'b.pth')
    with pytest.raises(RuntimeError, match='b.pth.*1 missing: query_token.*pre-training'):
        load_probe(Config(dict(model=dict(head=head))), tmp_path / 'b.pth')
