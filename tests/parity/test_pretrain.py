"""The model, its losses, gradients and optimizer steps against the official implementation."""
import json
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cae_mm.checkpoint.convert import convert
from cae_mm.checkpoint.names import rename
from cae_mm.models import (
    CAEDecoder,
    CAEViT,
    ContextAutoencoder,
    LatentContextualRegressor,
    TargetGenerator,
)
from cae_mm.positions import sincos_positions

TOLERANCE = dict(atol=2e-5, rtol=0)


class GivenTokens(TargetGenerator):
    """A target generator that returns the codes of the fixture."""

    def __init__(self, ids: Tensor, num_outputs: int, stride: int):
        super().__init__()
        self.ids, self.num_outputs, self.stride = ids, num_outputs, stride

    def get_targets(self, target_images, masked):
        return self.ids.gather(1, masked)


def load(golden, name):
    entry = json.loads((golden / 'manifest.json').read_text())['entries'][name]
    with np.load(golden / entry['file']) as arrays:
        return entry, {key: torch.from_numpy(arrays[key]) if arrays[key].dtype.kind in 'biuf'
                       else arrays[key] for key in arrays.files}


def weights(arrays):
    return {key[len('weights/'):]: value for key, value in arrays.items() if key.startswith('weights/')}


def build(entry, state, ids):
    c = entry['constructor']
    a = c['args']
    size, patch = c['img_size'], c['patch_size']
    height, width = size if isinstance(size, list) else (size, size)
    grid = (height // patch, width // patch)
    dims, heads = a['decoder_embed_dim'], c['decoder_num_heads']
    common = dict(grid_size=grid, embed_dims=dims, num_heads=heads, mlp_ratio=c['mlp_ratio'],
                  layer_scale_init_value=c['decoder_layer_scale_init_value'],
                  attn_dims=dims // heads * heads)
    model = ContextAutoencoder(
        backbone=CAEViT(dict(embed_dims=c['embed_dim'], num_layers=c['depth'],
                             num_heads=c['num_heads']), (height, width), patch,
                        mlp_ratio=c['mlp_ratio'], layer_scale_init_value=c['init_values']),
        neck=LatentContextualRegressor(in_dims=c['embed_dim'], depth=a['regressor_depth'], **common),
        head=CAEDecoder(num_outputs=c['decoder_num_classes'], depth=a['decoder_depth'], **common),
        target_generator=GivenTokens(ids, c['decoder_num_classes'], patch),
        data_preprocessor=nn.Identity())
    # Every official array must find its place, and every one of ours must be filled.
    model.load_state_dict(convert(state, 'official'))
    return model


def keep_first(outputs, part, module, inputs, output):
    outputs.setdefault(part, output)


def close(actual, expected):
    torch.testing.assert_close(actual.detach(), expected.to(actual.dtype), **TOLERANCE)


@pytest.mark.parametrize(
    'name', ['pretrain_small', 'pretrain_proj', 'pretrain_rect', 'pretrain_oddheads'])
def test_forward_and_gradients(golden, name):
    entry, arrays = load(golden, name)
    model = build(entry, weights(arrays), arrays['in/token_ids']).eval()
    middle = {}
    for part, blocks in (('encoder', model.backbone.blocks), ('regressor', model.neck.blocks),
                         ('decoder', model.head.blocks)):
        blocks[0].register_forward_hook(partial(keep_first, middle, part))
    images = arrays['in/images']
    out = model.forward_masked(images, arrays['in/bool_masked_pos'], images)
    for part, value in middle.items():
        close(value, arrays[f'mid/{part}_block0'])
    close(out.latent, arrays['out/encoder'])
    if 'out/encoder_projected' in arrays:
        close(model.neck.project(out.latent), arrays['out/encoder_projected'])
    close(out.predicted, arrays['out/latent_predict'])
    close(out.target, arrays['out/latent_target'])
    close(out.logits.flatten(0, 1), arrays['out/logits'])
    assert torch.equal(out.ids.flatten(), arrays['out/labels'])
    total = out.loss_reconstruct + out.loss_align
    close(out.loss_reconstruct, arrays['out/loss_ce'])
    close(out.loss_align, model.align_weight * arrays['out/loss_mse'])
    close(total, arrays['out/loss_total'])

    total.backward()
    gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    noise = entry['mathematically_zero_gradient']['names']
    for key, value in arrays.items():
        if key.startswith('grad/') and key[len('grad/'):] not in noise:
            close(gradients[rename(key[len('grad/'):], 'official')], value)
    for key, row in zip(arrays['gradstat/names'], arrays['gradstat/l2_sum_first'], strict=True):
        if key not in noise:
            g = gradients.pop(rename(str(key), 'official')).double()
            # Sums of many float32 gradients: compared relative to the norm they are sums of.
            scale = max(1., float(row[0]))
            close(torch.stack([g.norm(), g.sum(), g.flatten()[0]]) / scale, row / scale)
    assert set(gradients) <= {rename(key, 'official') for key in noise}


@pytest.mark.parametrize('name', ['pretrain_steps'])
def test_optimizer_steps(golden, name):
    from mmengine.optim import OptimWrapper
    from mmpretrain.registry import OPTIM_WRAPPER_CONSTRUCTORS

    entry, arrays = load(golden, name)
    start = entry['start_weights'].removesuffix('.npz')
    model = build(entry, weights(load(golden, start)[1]), arrays['in/token_ids'][0]).train()
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(dict(
        type='LayerDecayOptimWrapperConstructor',
        optim_wrapper_cfg=dict(type='OptimWrapper', optimizer=dict(
            type='AdamW', lr=1., betas=(0.9, 0.999), weight_decay=0.05))))
    wrapper: OptimWrapper = constructor(model)
    optimizer = wrapper.optimizer
    batches = len(arrays['in/images'])
    for step, (lr, reconstruct, align, loss, norm) in enumerate(arrays['out/table'].tolist()):
        batch = step % batches
        model.target_generator.ids = arrays['in/token_ids'][batch]
        for group in optimizer.param_groups:
            group['lr'] = lr * group.get('lr_scale', 1.)
        images = arrays['in/images'][batch]
        out = model.forward_masked(images, arrays['in/bool_masked_pos'][batch], images)
        total = out.loss_reconstruct + out.loss_align
        assert [out.loss_reconstruct.item(), out.loss_align.item(), total.item()] == pytest.approx(
            [reconstruct, align, loss], abs=2e-5)
        optimizer.zero_grad()
        total.backward()
        assert nn.utils.clip_grad_norm_(model.parameters(), 3.0).item() == pytest.approx(
            norm, abs=2e-5, rel=2e-5)
        optimizer.step()
    parameters = dict(model.named_parameters())
    noise = entry['not_reproducible_parameters']
    for key, value in arrays.items():
        if key.startswith('out/param/') and key[len('out/param/'):] not in noise:
            close(parameters[rename(key[len('out/param/'):], 'official')], value)
    for key, row in zip(arrays['out/param_names'], arrays['out/param_l2_sum_first'], strict=True):
        if key not in noise:
            p = parameters[rename(str(key), 'official')].double()
            scale = max(1., float(row[0]))
            close(torch.stack([p.norm(), p.sum(), p.flatten()[0]]) / scale, row / scale)


@pytest.mark.parametrize('name', ['sincos'])
def test_sincos_positions(golden, name):
    _, arrays = load(golden, name)
    tables = {key.split('/')[1] for key in arrays}
    assert tables
    for table in tables:
        dims, grid = table.removeprefix('dim').split('_')
        height, width = map(int, grid.split('x'))
        # The official table of H x W patches counts as if there were W rows of H columns: on
        # square grids that is the true one.
        ours = sincos_positions(int(dims), width, height)[0]
        if f'out/{table}' in arrays:
            close(ours, arrays[f'out/{table}'])
        else:
            row, channel = arrays[f'check/{table}/index'].T
            close(ours[row, channel], arrays[f'check/{table}/value'])
            flat = ours.double().flatten()
            weighted = (flat * torch.arange(1, flat.numel() + 1) / flat.numel()).sum()
            sums = torch.stack([flat.sum(), flat.square().sum(), weighted])
            torch.testing.assert_close(sums, arrays[f'check/{table}/sum_sumsq_weighted'],
                                       rtol=1e-6, atol=1e-2)
