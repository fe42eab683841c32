"""The compiled region is one graph, and stays it."""
from unittest import mock

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch._dynamo.exc import RecompileError, Unsupported
from torch._dynamo.utils import counters
from torch.nn.parallel import DistributedDataParallel

from tests.guards.test_traces import CONFIGS, build

SIZES = dict(grid_size=4, embed_dims=16, num_heads=2, depth=1, drop_path_rate=0.1)
TOY = dict(
    type='ContextAutoencoder',
    backbone=dict(type='CAEViT', img_size=32, patch_size=8, drop_path_rate=0.1,
                  arch=dict(embed_dims=24, num_layers=2, num_heads=2)),
    neck=dict(type='LatentContextualRegressor', in_dims=24, **SIZES),
    head=dict(type='CAEDecoder', num_outputs=192, **SIZES),
    target_generator=dict(type='PixelTarget', patch_size=8))


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def batch_of(model, number=2, device=None):
    rows, columns = model.backbone.grid_size
    encoder, targets = model.backbone.patch_size, model.target_generator.stride
    images, view = (torch.ones(number, 3, rows * side, columns * side, device=device)
                    for side in (encoder, targets))
    mask = torch.arange(rows * columns).expand(number, -1) < rows * columns // 2
    return dict(images=images, target_images=view, mask=mask)


def graphs_of(step):
    """How many graphs three steps need; from the second one on a compilation is an error."""
    for number in range(3):
        with torch._dynamo.config.patch(error_on_recompile=number > 0):
            step()
    return counters['stats']['unique_graphs']


def total(losses):
    return sum(loss for name, loss in losses.items() if name.startswith('loss'))


@pytest.mark.parametrize('name', [
    'cae_vits_300e', 'cae_vitb_300e', 'cae_v2_vitb_300e',
    pytest.param('cae_vitl_1600e', marks=pytest.mark.slow)])
def test_pre_training_is_one_graph(name):
    """Of full size, on the meta device, where it costs nothing to run."""
    model = build(f'pretrain/{name}').train()
    model.compile_forward(fullgraph=True, backend='eager')
    images = torch.empty(2, 3, 224, 224, device='meta')
    indices = torch.arange(98, device='meta').expand(2, -1)
    targets = model.head.positions(indices, indices)
    if model.head.decodes_cls:
        targets = torch.empty(*targets.shape, model.head.num_outputs, device='meta')
    assert graphs_of(lambda: model.step_losses(images, indices, indices, targets)[0].backward()) == 1


def test_with_its_gradients():
    """And with its targets, which are a graph of their own."""
    model = MODELS.build(TOY).train()
    model.compile_forward(fullgraph=True, backend='aot_eager')
    batch = batch_of(model)
    assert graphs_of(lambda: total(model(batch, mode='loss')).backward()) == 2


@pytest.mark.parametrize('targets', [
    TOY['target_generator'],
    dict(type='DiscreteVAE', num_codes=192, hidden_dims=4, allow_random=True),
    dict(type='TeacherFeatures', allow_random=True, backbone=dict(
        type='CAEViT', img_size=32, patch_size=8, arch=dict(embed_dims=192, num_layers=2, num_heads=2)))])
def test_making_targets_is_one_graph(targets, monkeypatch):
    """Of pixels, codes and features, and they are the same; codes in several parts."""
    monkeypatch.setattr('cae_mm.models.targets.dalle.rows_at_once', lambda logits: 5)
    torch.manual_seed(0)
    model = MODELS.build(dict(TOY, target_generator=targets)).train()
    images, positions = torch.rand(2, 3, 32, 32), torch.arange(16).expand(2, -1)
    expected = model.make_targets(images, positions)
    model.compile_forward(fullgraph=True, backend='eager')
    assert graphs_of(lambda: torch.testing.assert_close(model.make_targets(images, positions), expected)
                     ) == 1
    assert not targets['type'].startswith('Discrete') or len(expected.unique()) > 1


def test_every_block_of_a_classifier_is_one_graph():
    cfg = Config.fromfile(CONFIGS / 'cls/finetune_cae_vitb_100e.py').model.backbone
    with torch.device('meta'):
        backbone = MODELS.build(dict(cfg, init_cfg=None)).train()
    backbone.compile_forward(fullgraph=True, backend='eager')
    images = torch.empty(2, 3, 224, 224, device='meta')
    assert graphs_of(lambda: backbone(images)[0].sum().backward()) <= backbone.num_layers


@pytest.mark.parametrize('optimize_ddp', [True, False])
def test_two_ranks(on_ranks, optimize_ddp):
    """DDP cuts the one graph at its buckets where it is told to, and compiles no more than that.

    Forward passes alone: the threads of autograd cannot be forked.
    """
    def work():
        torch.manual_seed(0)
        model, graphs = MODELS.build(TOY).train(), []

        def backend(graph, inputs):
            graphs.append(graph)
            return graph.forward

        model.compile_forward(fullgraph=True, backend=backend)
        batch = batch_of(model)
        with torch._dynamo.config.patch(optimize_ddp=optimize_ddp), mock.patch(
                'torch.distributed._DEFAULT_FIRST_BUCKET_BYTES', 30_000):
            wrapped = DistributedDataParallel(model, bucket_cap_mb=0.03)
            compiled = graphs_of(lambda: wrapped(batch, mode='loss'))
        return compiled, len(graphs)

    [(compiled, pieces), other] = on_ranks(2, work)
    assert other == (compiled, pieces)
    targets = 1  # without parameters, so that DDP never cuts it
    assert compiled == 1 + targets and (pieces > compiled) == optimize_ddp


def test_the_guard_sees_a_graph_break():
    model = MODELS.build(TOY).train()
    model.neck.register_forward_hook(lambda *args: torch._dynamo.graph_break())
    model.compile_forward(fullgraph=True, backend='eager')
    with pytest.raises(Unsupported):
        model(batch_of(model), mode='loss')


def test_the_guard_sees_a_compilation_in_a_later_step():
    model = MODELS.build(TOY).train()
    model.neck.register_forward_hook(lambda module, args, output: output * module.scale)
    model.neck.scale = 1.
    model.compile_forward(fullgraph=True, backend='eager')
    model(batch_of(model), mode='loss')
    model.neck.scale = 2.
    with torch._dynamo.config.patch(error_on_recompile=True), pytest.raises(RecompileError):
        model(batch_of(model), mode='loss')
