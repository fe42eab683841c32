"""CAE v2 and its teacher against the official implementation."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cae_mm.checkpoint.convert import convert
from cae_mm.checkpoint.names import rename
from cae_mm.models import (
    CAEViT,
    ContextAutoencoder,
    LatentContextualRegressor,
    TargetGenerator,
    TeacherFeatures,
    TokenDecoder,
)
from cae_mm.positions import resized

from .test_pretrain import close, load, weights


class GivenFeatures(TargetGenerator):
    """A target generator that returns the features of the fixture, (B, 1 + N, K), class token first."""
    has_cls = True

    def __init__(self, features, stride):
        super().__init__()
        self.features, self.num_outputs, self.stride = features, features.shape[-1], stride

    def get_targets(self, target_images, masked):
        return self.features.gather(1, (masked + 1)[..., None].expand(-1, -1, self.num_outputs))


def build(entry, features):
    c, a = entry['constructor'], entry['constructor']['args']
    grid, dims, heads = c['img_size'] // c['patch_size'], a['decoder_embed_dim'], c['decoder_num_heads']
    return ContextAutoencoder(
        backbone=CAEViT(dict(embed_dims=c['embed_dim'], num_layers=c['depth'], num_heads=c['num_heads']),
                        c['img_size'], c['patch_size'], mlp_ratio=c['mlp_ratio'],
                        layer_scale_init_value=c['init_values']),
        neck=LatentContextualRegressor(
            grid, dims, c['embed_dim'], heads, a['regressor_depth'], c['mlp_ratio'],
            layer_scale_init_value=c['decoder_layer_scale_init_value'], attn_dims=dims // heads * heads,
            final_norm=False),
        head=TokenDecoder(grid, a['num_out_dim'], dims), align_weight=0.,
        target_generator=GivenFeatures(features, c['patch_size']), data_preprocessor=nn.Identity())


@pytest.mark.parametrize('name', ['caev2'])
def test_forward_and_gradients(golden, name):
    entry, arrays = load(golden, name)
    model, state = build(entry, arrays['in/clip_features']), weights(arrays)
    report = []
    model.load_state_dict(convert(state, 'official', report=report))
    assert any('regresser.norm.weight left out' in line for line in report)
    theirs = convert(model.state_dict(), target='official')  # and back: its unused norm is new
    assert theirs.keys() == state.keys()
    assert all(torch.equal(theirs[key], value) for key, value in state.items()
               if not key.startswith('regresser.norm'))
    normed = []
    model.head.norm.register_forward_hook(lambda module, inputs, output: normed.append(output))
    images = arrays['in/images']
    out = model.eval().forward_masked(images, arrays['in/bool_masked_pos'], images)
    close(F.normalize(out.logits, dim=-1), arrays['out/logits'])
    close(normed[0][:, -entry['num_masked']:], arrays['out/latent_predict'])
    close(out.loss_reconstruct, arrays['out/loss'])
    assert out.target is out.loss_align is None
    out.loss_reconstruct.backward()
    gradients = {key: p.grad for key, p in model.named_parameters()}
    for key, value in arrays.items():
        if key.startswith('grad/'):
            close(gradients[rename(key[len('grad/'):], 'official')], value)
    assert all(gradient is not None for gradient in gradients.values())


@pytest.mark.parametrize('name', ['clip_visual'])
def test_clip_teacher(golden, name, tmp_path):
    entry, arrays = load(golden, name)
    c, images = entry['constructor'], arrays['in/images']
    torch.save({f'visual.{key}': value for key, value in weights(arrays).items()}, tmp_path / 'clip.pth')
    options = dict(
        backbone=dict(type='TimmViT', name='vit_base_patch16_clip_quickgelu_224', num_heads=c['heads'],
                      img_size=c['input_resolution'], patch_size=c['patch_size'], embed_dim=c['width'],
                      depth=c['layers']),
        projection=c['output_dim'], init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'clip.pth')))
    teacher = TeacherFeatures(**options)
    tokens = torch.arange(-1, arrays['out/features'].shape[1] - 1).expand(len(images), -1)
    close(teacher.get_targets(images * teacher.std + teacher.mean, tokens), arrays['out/features'])

    old, side = arrays['in/old_positional_embedding'][None], c['input_resolution'] // c['patch_size']
    key = next(key for key in arrays if key.startswith('out/resized'))
    new = int(key.rpartition('x')[2])
    close(resized(old, (side, side), (new, new), 'bilinear')[0], arrays[key])
    smaller = TeacherFeatures(**options, img_size=new * c['patch_size']).backbone.vit.pos_embed
    own = arrays['weights/positional_embedding'][None]
    close(smaller, resized(own, (side, side), (new, new), 'bilinear'))
