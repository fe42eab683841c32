"""Other libraries load what is exported and compute the same, at each size they take."""
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import transformers
from huggingface_hub import constants
from mmengine.config import Config
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform, resolve_model_data_config

import cae_mm
from cae_mm.checkpoint import export as module
from cae_mm.checkpoint.export import Exported, export, read_model
from cae_mm.checkpoint.facts import facts_of
from cae_mm.engine.launch import check_paths

from .conftest import SIZE

ROOT = Path(__file__).parents[2]
PIXELS = dict(mean=[120., 110., 100.], std=[60., 50., 55.], channel_order='RGB')
CLASSES = ['ant', 'bee', 'cat', 'dog', 'eel']


@pytest.fixture
def saved(make, tmp_path):
    """A function that saves a model as a training does, and returns it and its file."""

    def save(kind, drop='-', pixels=PIXELS, **changes):
        model = make(kind, **changes)
        prefix = 'backbone.' if kind == 'encoder' else ''
        state = {prefix + name: value for name, value in model.state_dict().items() if drop not in name}
        meta = dict(cae_mm=facts_of(model) | pixels, dataset_meta=dict(classes=CLASSES))
        torch.save(dict(state_dict=state, meta=meta), tmp_path / 'trained.pth')
        return model.requires_grad_(False), tmp_path / 'trained.pth'

    return save


def images(batch=2, height=SIZE, width=SIZE):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def close(got, want, tolerance=1e-4):
    assert got.shape == want.shape
    assert (got - want).abs().max() <= tolerance * want.abs().max().clamp(min=1)


def of_timm(folder, **options):
    return timm.create_model(f'local-dir:{folder}', pretrained=True, **options).eval()


def graph(path, to):
    """What a user runs."""
    if to == 'torch-export':
        return torch.export.load(path).module()
    onnxruntime = pytest.importorskip('onnxruntime')
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    assert json.loads(session.get_modelmeta().custom_metadata_map['cae_mm'])['mean'] == PIXELS['mean']
    return lambda batch: list(map(torch.from_numpy, session.run(None, dict(images=batch.numpy()))))


@pytest.mark.parametrize('to', ['onnx', 'torch-export'])
def test_graph_of_an_encoder_takes_all_sizes(saved, tmp_path, to):
    pytest.importorskip('onnxscript' if to == 'onnx' else 'torch')
    ours, path = saved('pre-training')
    out = tmp_path / f'encoder{module.FILES[to]}'
    export(read_model(path, out_indices=(0, 1)), out, to)
    run = graph(out, to)
    ours.backbone.out_indices = [0, 1]
    for size in ((1, SIZE, SIZE), (3, 48, 24)):
        batch = images(*size)
        cls_token, *maps = run(batch)
        close(cls_token, ours.backbone.encode(batch)[:, 0], 2e-6)
        ours.backbone.out_type = 'featmap'
        for got, want in zip(maps, ours.backbone(batch), strict=True):
            close(got, want, 2e-6)


@pytest.mark.parametrize('kind, to', [('relative', 'onnx'), ('classifier', 'torch-export')])
def test_graph_of_a_classifier(saved, tmp_path, kind, to):
    pytest.importorskip('onnxscript' if to == 'onnx' else 'torch')
    ours, path = saved(kind)
    report = export(read_model(path), tmp_path / f'classifier{module.FILES[to]}', to)
    assert len(report) == (4 if kind == 'classifier' else 3) and 'logits' in report[-1]
    run = graph(tmp_path / f'classifier{module.FILES[to]}', to)
    for batch in (images(1), images(5)):
        close(run(batch)[0], ours(batch), 2e-6)


def test_traced_encoder(make):
    ours, batch = make('encoder', use_rel_pos_bias=True, out_type='raw').requires_grad_(False), images()
    close(torch.jit.trace(ours, batch)(batch)[0], ours(batch)[0], 2e-6)


def test_traced_at_another_size_than_that_of_its_positions(make):
    """As mmdet's get_flops.py does."""
    ours = make('encoder', pos_mode='resize', out_type='raw').requires_grad_(False)
    batch = images(2, 48, 24)
    close(torch.jit.trace(ours, batch)(batch)[0], ours(batch)[0], 2e-6)


@pytest.mark.parametrize('kind', ['pre-training', 'classifier', 'relative'])
def test_folder_for_timm_and_transformers(saved, tmp_path, kind):
    ours, path = saved(kind)
    out, batch = tmp_path / 'vit', images()
    export(read_model(path), out, 'timm', 'the card')
    theirs = of_timm(out)
    wrapped = transformers.AutoModel.from_pretrained(out).eval()
    if kind == 'pre-training':
        tokens = ours.backbone.encode(batch)
        close(theirs.forward_features(batch), tokens)
        close(theirs(batch), tokens[:, 0])
        close(wrapped(batch).last_hidden_state, tokens)
    else:
        for one in (batch, images(3)):
            close(theirs(one), ours(one))
        close(wrapped(batch).pooler_output, ours.backbone(batch)[-1])
        with_head = transformers.AutoModelForImageClassification.from_pretrained(out).eval()
        close(with_head(batch).logits, ours(batch))
        assert with_head.config.id2label[4] == 'eel'
    taps = of_timm(out, features_only=True, out_indices=(0,))
    ours.backbone.out_type, ours.backbone.out_indices = 'featmap', [0]
    close(taps(batch)[0], ours.backbone(batch)[0])
    picture = Image.fromarray(np.full((50, 70, 3), (180, 60, 155), np.uint8))
    inputs = create_transform(**resolve_model_data_config(theirs), is_training=False)(picture)
    expected = torch.tensor([1., -1., 1.]).view(3, 1, 1).expand(3, SIZE, SIZE)
    close(inputs, expected)
    close(transformers.AutoImageProcessor.from_pretrained(out)(picture).pixel_values[0], expected)
    assert (out / 'README.md').read_text() == 'the card'


@pytest.mark.parametrize('kind', ['pre-training', 'classifier', 'relative'])
def test_folder_for_transformers_own_beit(saved, tmp_path, kind):
    ours, path = saved(kind)
    out, batch = tmp_path / 'beit', images()
    export(read_model(path), out, 'huggingface')
    whole = transformers.AutoModel.from_pretrained(out).eval()
    assert type(whole).__name__ == 'BeitModel'
    if kind == 'pre-training':
        for one in (batch, images(3)):
            close(whole(one).last_hidden_state, ours.backbone.encode(one))
    else:
        close(whole(batch).pooler_output, ours.backbone(batch)[-1])
        with_head = transformers.AutoModelForImageClassification.from_pretrained(out).eval()
        close(with_head(batch).logits, ours(batch))
        assert with_head.config.label2id['eel'] == 4
    taps = transformers.BeitBackbone.from_pretrained(out, out_indices=[1]).eval()
    ours.backbone.out_type, ours.backbone.out_indices = 'featmap', [0]
    close(taps(batch).feature_maps[0], ours.backbone(batch)[0])
    picture = Image.fromarray(np.full((50, 70, 3), (180, 60, 155), np.uint8))
    pixels = transformers.AutoImageProcessor.from_pretrained(out)(picture, return_tensors='pt').pixel_values
    close(pixels[0], torch.tensor([1., -1., 1.]).view(3, 1, 1).expand(3, SIZE, SIZE))


@pytest.mark.parametrize('relative', [False, True])
def test_encoder_of_a_detector_gives_its_maps(make, tmp_path, relative):
    ours = make('encoder', final_norm=False, use_rel_pos_bias=relative, out_type='featmap')
    state = {f'backbone.{name}': value for name, value in ours.state_dict().items()}
    state |= {'rpn_head.rpn_conv.weight': torch.ones(3), 'neck.upsample2.weight': torch.ones(3)}
    torch.save(dict(state_dict=state, meta=dict(cae_mm=facts_of(ours))), tmp_path / 'detector.pth')
    report, [want] = [], ours.requires_grad_(False)(images())
    model = read_model(tmp_path / 'detector.pth', report=report)
    assert model(images())[1].equal(want)
    assert 'of use are the maps' in report[1] and "ImageNet's mean" in report[-1]
    assert ("pos_mode='resize'" in report[2]) != relative
    for to in module.FOLDERS:
        export(read_model(tmp_path / 'detector.pth'), tmp_path / to, to)
    close(of_timm(tmp_path / 'timm', features_only=True, out_indices=(1,))(images())[0], want)
    theirs = transformers.BeitBackbone.from_pretrained(tmp_path / 'huggingface', out_indices=[2]).eval()
    close(theirs(images()).feature_maps[0], want)


def test_another_image_size(saved, make, tmp_path):
    """Positions are computed anew, and not resized as timm and transformers do."""
    ours, path = saved('encoder')
    export(read_model(path, img_size=(48, 24)), tmp_path / 'vit', 'timm')
    close(of_timm(tmp_path / 'vit')(images(2, 48, 24)), ours.encode(images(2, 48, 24))[:, 0])


def test_a_table_that_was_resized_is_for_one_size(make, tmp_path):
    """As detectors have that of their pre-training."""
    ours = make('encoder', img_size=(32, 48), final_norm=False, out_type='featmap').requires_grad_(False)
    ours.pos_embed += 0.1
    state = {f'backbone.{name}': value for name, value in ours.state_dict().items()}
    torch.save(dict(state_dict=state, meta=dict(cae_mm=facts_of(ours))), tmp_path / 'detector.pth')
    export(read_model(tmp_path / 'detector.pth'), tmp_path / 'encoder.pt2', 'torch-export')
    run, batch = graph(tmp_path / 'encoder.pt2', 'torch-export'), images(3, 32, 48)
    close(run(batch)[1], ours(batch)[0])


def test_pixels_of_another_order(saved):
    ours, path = saved('encoder', pixels=dict(PIXELS, channel_order='BGR'))
    model = read_model(path)
    close(model(images().flip(1))[0], ours(images())[0])
    assert (model.mean, model.std) == (PIXELS['mean'][::-1], PIXELS['std'][::-1])


@pytest.mark.parametrize('to', ['timm', 'huggingface', 'safetensors'])
def test_there_and_back(saved, make, tmp_path, to, monkeypatch):
    ours, path = saved('classifier')
    out = tmp_path / ('model.safetensors' if to == 'safetensors' else 'folder')
    export(read_model(path), out, to)
    back = cae_mm.get_model(pretrained=out, out_type='raw')
    close(back(images())[0], ours.backbone.encode(images()))
    assert back.trained_with['mean'] == PIXELS['mean']
    if to == 'safetensors':
        arrays = load_file(out)
        assert all(value.equal(arrays[name]) for name, value in ours.state_dict().items())
        return
    # The same folder on the Hub, that is, in the cache of what was downloaded from there.
    repository = tmp_path / 'hub/models--me--vit'
    (repository / 'refs').mkdir(parents=True)
    (repository / 'refs/main').write_text('0' * 40)
    (repository / 'snapshots').mkdir()
    out.rename(repository / 'snapshots' / ('0' * 40))
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    again = cae_mm.get_model(pretrained='hf-hub:me/vit', out_type='raw', out_indices=(0, 1))
    close(again(images())[1], ours.backbone.encode(images()))
    init_cfg = dict(type='Pretrained', checkpoint='hf-hub:me/vit')
    check_paths(Config(dict(model=dict(backbone=dict(init_cfg=init_cfg)))), 'train')
    started = make('encoder', init_cfg=init_cfg)
    started.init_weights()
    assert started.norm.bias.equal(ours.backbone.norm.bias)
    with pytest.raises(FileNotFoundError, match='cannot download model.safetensors of hf-hub:me/other'):
        cae_mm.get_model(pretrained='hf-hub:me/other')
    if to == 'timm':
        close(timm.create_model('hf-hub:me/vit', pretrained=True).eval()(images()), ours(images()))


def test_refusals_leave_nothing(saved, make, tmp_path, monkeypatch):
    ours, path = saved('encoder')
    with pytest.raises(ValueError, match=r'name a \.pt2 file'):
        export(read_model(path), tmp_path / 'encoder.onnx', 'torch-export')
    with pytest.raises(ValueError, match='takes square images, these are of 48x32: take --to timm'):
        export(read_model(path, img_size=(48, 32)), tmp_path / 'new', 'huggingface')
    with pytest.raises(FileExistsError, match='something already'):
        export(read_model(path), tmp_path, 'timm')
    monkeypatch.setattr(module, 'TOLERANCE', -1)
    for to, name in (('timm', 'new'), ('torch-export', 'new.pt2')):
        with pytest.raises(RuntimeError, match=f'{to} differs .* images of 2x3x32x32: nothing is written'):
            export(read_model(path), tmp_path / name, to)
    assert [file.name for file in tmp_path.iterdir()] == ['trained.pth']
    torch.save({f'backbone.{name}': value for name, value in ours.state_dict().items()}, path)
    with pytest.raises(ValueError, match='trained.pth: it does not say how many attention heads'):
        read_model(path)
    assert read_model(path, num_heads=3).facts['num_heads'] == 3
    with pytest.raises(ValueError, match='name an encoder, or give a checkpoint'):
        cae_mm.get_model()


def test_torch_hub():
    with pytest.raises(ValueError, match='give a checkpoint'):
        torch.hub.load(str(ROOT), 'get_model', source='local')
    model = torch.hub.load(str(ROOT), 'cae_deitt', source='local', img_size=32)
    assert model.embed_dims == 192 and Exported(model).outputs == ['cls_token', 'map_11']
