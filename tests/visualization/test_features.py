"""Patch features and their colours."""
import numpy as np
import torch

from cae_mm.visualization import patch_features, pca_colours


def test_features_of_a_block(make_backbone, images):
    backbone = make_backbone().eval()
    expected = backbone.encode(images)[:, 1:]
    for layer in (2, -1):
        features = patch_features(backbone.train(), images, layer)
        assert features.shape == (2, 2, 3, 16) and backbone.training
        torch.testing.assert_close(features.flatten(1, 2), expected)
    backbone.eval()
    middle = backbone.blocks[1](backbone.blocks[0](backbone.embed(images)))[:, 1:]
    torch.testing.assert_close(patch_features(backbone, images, 1).flatten(1, 2), middle)
    bare = make_backbone(with_cls_token=False, out_type='featmap').eval()
    torch.testing.assert_close(patch_features(bare, images), bare(images)[0].permute(0, 2, 3, 1))


def test_colours_are_the_first_components_of_all_pictures():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(12, 12)))[0].T
    scores = rng.normal(size=(500, 12)) * [9, 6, 4, *[0.1] * 9] - 1
    pictures = torch.tensor(scores @ axes).split([200, 300])
    pictures = [pictures[0].view(10, 20, 12), pictures[1].view(30, 10, 12)]
    colours = pca_colours(pictures)
    assert [x.shape for x in colours] == [(10, 20, 3), (30, 10, 3)]
    everything = torch.cat([x.flatten(0, 1) for x in colours]).numpy()
    assert everything.min() == 0 and everything.max() == 1
    assert ((everything == 0).sum(0) == 5).all() and ((everything == 1).sum(0) == 5).all()
    for channel in range(3):
        sign = np.sign(axes[channel][np.abs(axes[channel]).argmax()])
        correlation = np.corrcoef(everything[:, channel], sign * scores[:, channel])[0, 1]
        assert correlation > 0.98
    turned = pca_colours([-x for x in pictures])  # the axes stay, so colours are inverted
    torch.testing.assert_close(turned[0], 1 - colours[0])


def test_equal_patches_have_a_colour():
    [colours] = pca_colours([torch.ones(2, 2, 8)])
    assert torch.isfinite(colours).all()
