"""tools/visualize.py as it is called."""
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from PIL import Image

CONFIG = """
model = dict(
    type='ImageClassifier', data_preprocessor=dict(mean=[100, 110, 120], std=[50, 60, 70], to_rgb=True),
    backbone=dict(
        type='CAEViT', img_size=16, patch_size=4, out_type='raw', use_rel_pos_bias={bias},
        arch=dict(embed_dims=24, num_layers=3, num_heads=2)),
    head=dict(type='{head}', num_classes=3, in_channels=24, {options}))
"""


@pytest.fixture
def configs(tmp_path):
    """Paths of a linear classifier, one with a relative position bias, and an attentive probe."""
    kinds = dict(linear=(False, 'LinearClsHead', ''), bias=(True, 'LinearClsHead', ''),
                 attentive=(False, 'AttentiveProbeHead', 'num_heads=2'))
    for name, (bias, head, options) in kinds.items():
        (tmp_path / f'{name}.py').write_text(CONFIG.format(bias=bias, head=head, options=options))
    return {name: tmp_path / f'{name}.py' for name in kinds}


def save_model(config, path):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(Config.fromfile(config).model)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.save({'state_dict': model.state_dict()}, path)
    return path


def num_columns(path):
    """Columns of a figure: parts of its middle that white gaps separate."""
    figure = np.asarray(Image.open(path).convert('L'))
    rows = figure[len(figure) // 3: len(figure) * 2 // 3]
    inked = (rows < 250).any(0)
    return int(inked[0]) + int((inked[1:] & ~inked[:-1]).sum())


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / 'photographs'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, shape in (('wide.png', (20, 31)), ('tall.jpg', (40, 20))):
        Image.fromarray(rng.integers(0, 200, (*shape, 3), dtype=np.uint8)).save(folder / name)
    return folder


def test_encoder(configs, photographs, call_tool, tmp_path):
    checkpoint = save_model(configs['linear'], tmp_path / 'model.pth')
    out = tmp_path / 'new' / 'figure.png'
    call = [configs['linear'], checkpoint, '--images', photographs, '--out', out]
    call_tool('visualize.py', *call)
    assert num_columns(out) == 3
    first = out.read_bytes()
    call_tool('visualize.py', *call)
    assert out.read_bytes() == first
    call_tool('visualize.py', *call, '--size', '32', '--layer', '0', '--heads')
    assert num_columns(out) == 5


def test_attentive_probe(configs, photographs, call_tool, tmp_path):
    checkpoint = save_model(configs['attentive'], tmp_path / 'model.pth')
    call_tool('visualize.py', configs['attentive'], checkpoint, '--images', photographs / 'wide.png',
              '--out', tmp_path / 'a.png', '--cfg-options', 'model.head.num_classes=7')
    assert num_columns(tmp_path / 'a.png') == 4


def test_relative_position_bias_takes_one_size(configs, photographs, call_tool, tmp_path):
    checkpoint = save_model(configs['bias'], tmp_path / 'model.pth')
    call = [configs['bias'], checkpoint, '--images', photographs, '--out', tmp_path / 'a.png']
    call_tool('visualize.py', *call)
    assert num_columns(tmp_path / 'a.png') == 3
    with pytest.raises(ValueError, match='--size 32.*16x16'):
        call_tool('visualize.py', *call, '--size', '32')


def test_a_model_by_name(photographs, call_tool, tmp_path, capsys):
    call_tool('visualize.py', 'cae_deitt', 'none', '--images', photographs / 'wide.png',
              '--size', '48', '--out', tmp_path / 'a.png')
    assert 'RANDOM' in capsys.readouterr().out
    assert num_columns(tmp_path / 'a.png') == 3


def test_wrong_options(configs, photographs, call_tool, tmp_path):
    checkpoint = save_model(configs['linear'], tmp_path / 'model.pth')
    other, broken = tmp_path / 'other.pth', photographs / 'broken.jpg'
    torch.save({'state_dict': {'decode_head.weight': torch.zeros(3)}}, other)
    broken.write_bytes(b'no picture')
    wide = photographs / 'wide.png'
    for path, options, message in (
            (checkpoint, ['--images', broken], 'broken.jpg is unreadable'),
            (checkpoint, ['--images', tmp_path / 'none'], 'no images.*none'),
            (checkpoint, ['--images', wide, '--layer', '3'], r'layer=3.*0\.\.2'),
            (checkpoint, ['--images', wide, '--num', '0'], '--num: 0 is no whole number'),
            (other, ['--images', wide], 'other.pth')):
        with pytest.raises((ValueError, FileNotFoundError, RuntimeError), match=message):
            call_tool('visualize.py', configs['linear'], path, *options, '--out', tmp_path / 'a.png')
    assert not (tmp_path / 'a.png').exists()
