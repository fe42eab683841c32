"""Predictions drawn on one's own pictures."""
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

NAMES = ['gelb', 'grün', 'blau']


@pytest.fixture
def draw(dense, tmp_path, call_tool, capsys):
    """A function that draws with a random model of three classes, which its file names."""
    config, options, _ = dense
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    for part in ('decode_head', 'auxiliary_head') if 'decode_head' in cfg.model else ('roi_head',):
        for head in (cfg.model[part], *map(cfg.model[part].get, ('bbox_head', 'mask_head'))):
            if head and 'num_classes' in head:
                head.num_classes = 3
    torch.manual_seed(0)
    meta = dict(dataset_meta=dict(classes=NAMES, palette=[[255, 0, 0], [0, 255, 0], [0, 0, 255]]))
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict(), meta=meta), tmp_path / 'trained.pth')

    def draw(images, out, threshold=0, checkpoint='trained.pth'):
        call_tool('demo_image.py', config, tmp_path / checkpoint, '--images', *images, '--out', out,
                  '--score-thr', threshold, '--cfg-options', *options[4:])
        return ''.join(capsys.readouterr())

    return draw


@pytest.fixture
def pictures(tmp_path):
    """A folder with a picture of 70 x 50 and, below it, one of 300 x 400 that is grey."""
    rng = np.random.default_rng(0)
    for name, shape in (('a.png', (50, 70, 3)), ('sub/b.jpg', (400, 300))):
        (tmp_path / 'pictures' / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / 'pictures' / name)
    return tmp_path / 'pictures'


def test_pictures_of_a_folder(draw, pictures, tmp_path, request):
    printed = draw([pictures], tmp_path / 'out')
    assert any(name in printed for name in NAMES) and 'drawing: 100%' in printed and '2/2' in printed
    a, b = (np.asarray(Image.open(tmp_path / 'out' / name)) for name in ('a.png', 'sub/b.png'))
    assert (a.shape[0], b.shape[0]) == (8 * 50, 2 * 400)  # enlarged until names can be read
    beside = (a.shape[1] - 8 * 70, b.shape[1] - 2 * 300)
    if 'seg' in request.node.name:
        assert min(beside) > 50  # for the names and colours
        return
    assert beside == (0, 0)
    assert f'{tmp_path}/nothing.png: nothing\n' in draw([pictures / 'a.png'], tmp_path / 'nothing.png', 1)
    assert not np.array_equal(a, np.asarray(Image.open(tmp_path / 'nothing.png')))


@pytest.mark.parametrize('dense', ['seg'], indirect=True)
def test_what_cannot_be_drawn(draw, pictures, tmp_path):
    out = tmp_path / 'out'
    with pytest.raises(FileNotFoundError, match='--images .*nowhere: there is no such picture'):
        draw([pictures, tmp_path / 'nowhere'], out)
    with pytest.raises(ValueError, match='out.png is one file for 2 pictures: name a folder'):
        draw([pictures], tmp_path / 'out.png')
    with pytest.raises(ValueError, match='a.png would be overwritten'):
        draw([pictures], pictures)
    (pictures / 'text.png').write_text('text')
    with pytest.raises(ValueError, match='text.png cannot be read .UnidentifiedImageError'):
        draw([pictures / 'text.png'], out)
    state = torch.load(tmp_path / 'trained.pth')
    del state['state_dict']['decode_head.conv_seg.bias']
    torch.save(state, tmp_path / 'part.pth')
    with pytest.raises(RuntimeError, match='part.pth is of another model .*1 missing: decode_head'):
        draw([pictures / 'a.png'], out, checkpoint='part.pth')


def test_other_configs_are_refused(toy_config, call_tool, tmp_path):
    with pytest.raises(ValueError, match='neither objects nor segments .*tools/reconstruct.py'):
        call_tool('demo_image.py', toy_config, 'none.pth', '--images', tmp_path, '--out', tmp_path / 'out')
