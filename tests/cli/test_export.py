"""``tools/export.py``, as typed."""
import json

import pytest
import torch

from cae_mm.checkpoint.facts import facts_of
from cae_mm.models import CAEViT


@pytest.fixture
def checkpoint(tmp_path):
    encoder = CAEViT(dict(embed_dims=24, num_layers=2, num_heads=4), img_size=32, patch_size=8)
    state = {f'backbone.{name}': value for name, value in encoder.state_dict().items()}
    path = tmp_path / 'epoch_3.pth'
    torch.save(dict(state_dict=state, meta=dict(cae_mm=facts_of(encoder), epoch=3)), path)
    return path


def test_a_folder_and_a_graph(checkpoint, call_tool, tmp_path, capsys):
    call_tool('export.py', checkpoint, tmp_path / 'vit', '--to', 'timm', '--img-size', 48,
              '--license', 'mit')
    call_tool('export.py', checkpoint, tmp_path / 'vit.pt2', '--to', 'torch-export', '--out-indices', 0, 1)
    printed = capsys.readouterr().out
    for line in ('cae_mm, encoder: 2 blocks, width 24, patches of 8, images of 48x48',
                 "ImageNet's mean and std are taken", 'images of 3x3x40x48', 'cls_token, map_0, map_1',
                 f"wrote {tmp_path}/vit, load it with timm.create_model('local-dir:"):
        assert line in printed
    assert json.loads((tmp_path / 'vit/config.json').read_text())['model_args']['img_size'] == [48, 48]
    card = (tmp_path / 'vit/README.md').read_text()
    assert 'license: mit' in card and '--to timm --img-size 48' in card
    classes, first, last = torch.export.load(tmp_path / 'vit.pt2').module()(torch.randn(4, 3, 16, 24))
    assert classes.shape == (4, 24) and first.shape == last.shape == (4, 24, 2, 3)


@pytest.mark.parametrize('arguments, message', [
    (['x.onnx', '--to', 'onnx', '--img-size', '1', '2', '3'], 'a height and a width'),
    (['x', '--to', 'timm', '--out-indices', '3'], 'is of onnx and torch-export'),
    (['x.onnx', '--to', 'onnx', '--license', 'mit'], 'is for the model card'),
    (['x.pth', '--to', 'onnx'], r'x.pth: name a .onnx file')])
def test_wrong_options(checkpoint, call_tool, arguments, message):
    with pytest.raises(ValueError, match=message):
        call_tool('export.py', checkpoint, *arguments)
