"""Compiled models compute what they did, under the same names. The backends need no C++ compiler."""
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch import nn

from cae_mm.engine.compilation import compile_model
from cae_mm.models import DiscreteVAE

ENCODER = dict(type='CAEViT', img_size=32, patch_size=8, drop_path_rate=0.1,
               arch=dict(embed_dims=24, num_layers=12, num_heads=2))


@pytest.fixture
def counting():
    """A backend that counts the graphs it is given, and their calls."""
    torch.compiler.reset()

    def backend(graph, inputs):
        backend.graphs += 1

        def run(*args):
            backend.calls += 1
            return graph(*args)
        return run

    backend.graphs = backend.calls = 0
    yield backend
    torch.compiler.reset()


def cae():
    sizes = dict(grid_size=4, embed_dims=16, num_heads=2, depth=1)
    return MODELS.build(dict(
        type='ContextAutoencoder', backbone=dict(ENCODER),
        head=dict(type='CAEDecoder', num_outputs=192, **sizes),
        neck=dict(type='LatentContextualRegressor', in_dims=24, **sizes),
        target_generator=dict(type='PixelTarget', patch_size=8)))


def gradients(model):
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def test_a_classifier_trains_and_is_tested_compiled(counting):
    """Every block, in both modes, with the gradients, names and layers of the eager model."""
    torch.manual_seed(0)
    model = MODELS.build(dict(
        type='ImageClassifier', backbone=dict(ENCODER, drop_path_rate=0.),
        head=dict(type='LinearClsHead', num_classes=3, in_channels=24)))
    names, images = list(model.state_dict()), torch.rand(2, 3, 32, 32)

    def step():
        model.zero_grad()
        outputs = model.train()(images)[0]
        outputs.sum().backward()
        with torch.no_grad():
            return [outputs, model.eval()(images)[0], *gradients(model)]

    eager = step()
    compile_model(nn.Sequential(model), dict(backend=counting))  # wrapped, as by DDP
    for got, want in zip(step(), eager, strict=True):
        torch.testing.assert_close(got, want)
    assert counting.calls == 2 * 12
    assert list(model.state_dict()) == names
    assert model.backbone.get_layer_depth('backbone.blocks.3.norm1.weight', 'backbone.') == (4, 14)


def test_no_block_falls_back_and_sizes_may_change(counting):
    """Drop path gives each block a graph of its own; other sizes, as in detection, add one to each."""
    model = MODELS.build(dict(ENCODER, out_type='featmap', drop_path_rate=0.2))
    compile_model(model, dict(backend=counting))
    for size in (32, 40, 48, 56):
        model(torch.rand(1, 3, size, 32))[0].sum().backward()
    assert counting.calls == 4 * 12
    assert counting.graphs <= 2 * 12


def test_blocks_that_are_computed_again_for_their_gradients():
    torch.manual_seed(0)
    model, images = MODELS.build(dict(ENCODER, drop_path_rate=0., with_cp=True)), torch.rand(2, 3, 32, 32)

    def step():
        model.zero_grad()
        model(images)[0].sum().backward()
        return gradients(model)

    eager = step()
    compile_model(model, dict(backend='aot_eager'))
    for got, want in zip(step(), eager, strict=True):
        torch.testing.assert_close(got, want)


def test_pre_training_compiles_the_method_as_a_whole(counting):
    model = cae()
    names = list(model.state_dict())
    compile_model(model, dict(backend=counting))
    images, mask = torch.rand(2, 3, 32, 32), torch.arange(16).expand(2, -1) < 8
    for _ in range(2):
        model.loss(dict(images=images, mask=mask, target_images=images))['loss_reconstruct'].backward()
    assert (counting.graphs, counting.calls) == (2, 4)  # one makes the targets
    assert list(model.state_dict()) == names


@pytest.mark.parametrize('option, gpu, compiled', [
    (None, True, False), (False, True, False), ('auto', False, False), ('auto', True, True),
    (True, False, True), (True, True, True)])
def test_where_it_compiles(monkeypatch, option, gpu, compiled):
    model, calls = cae(), []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    monkeypatch.setattr(model, 'compile_forward', lambda **options: calls.append(options))
    compile_model(model, option)
    assert calls == [{}] * compiled


def test_what_cannot_be_compiled_is_refused_in_words():
    with pytest.raises(ValueError, match='compile_model=True: DiscreteVAE has no part'):
        compile_model(DiscreteVAE(num_codes=8, hidden_dims=8, num_groups=1), True)
    with pytest.raises(ValueError, match="compile_model='cuda': choose 'auto'"):
        compile_model(cae(), 'cuda')


def test_the_command_line_compiles(toy_runner, monkeypatch):
    """Here, without a GPU, too."""
    from cae_mm.engine import launch
    runner = toy_runner()
    monkeypatch.setattr(launch.Runner, 'from_cfg', lambda cfg: runner)
    with pytest.raises(ValueError, match='Line has no part'):
        launch.build_runner(Config(dict(compile_model=True)))
