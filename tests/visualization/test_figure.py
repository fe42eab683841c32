"""Choosing, reading and drawing pictures."""
import importlib
import random

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from cae_mm.visualization import WholeView, choose_images, curves, draw_rows, figure, load_image


@pytest.fixture
def folder(tmp_path):
    for name in ('b.png', 'a.jpg', 'deep/er/c.PNG'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (20, 30), (10, 200, 30)).save(tmp_path / name)
    (tmp_path / 'notes.txt').write_text('not a picture')
    return tmp_path


def test_choice(folder):
    names = [path.name for path in choose_images([folder / 'b.png', folder], 9)]
    assert names == ['b.png', 'a.jpg', 'b.png', 'c.PNG']
    random.seed(0)
    assert len(set(choose_images([folder], 2))) == 2
    with pytest.raises(FileNotFoundError, match='nothing'):
        choose_images([folder / 'nothing'], 2)
    with pytest.raises(ValueError, match='0 pictures'):
        choose_images([folder], 0)


@pytest.mark.parametrize('shape, side, expected', [
    ((60, 90), 32, (32, 48)), ((90, 60), 32, (48, 32)), ((50, 500), 24, (24, 240)),
    ((61, 64), 64, (64, 64)), ((10, 17), 8, (8, 16))])
def test_whole_view(shape, side, expected):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    seen = WholeView(side, 8)(dict(img=image))['img']
    assert seen.shape == (*expected, 3)
    assert abs(seen.mean() - image.mean()) < 4


def test_a_fitting_picture_stays_as_it_is_and_patches_are_a_minimum():
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    assert WholeView(16, 8)(dict(img=image))['img'] is image
    with pytest.raises(ValueError, match='7 pixels.*8'):
        WholeView(7, 8)


def test_unreadable(folder):
    assert load_image(folder / 'b.png', WholeView(20, 10)).shape == (3, 30, 20)
    with pytest.raises(ValueError, match='notes.txt is unreadable'):
        load_image(folder / 'notes.txt', WholeView(20, 10))


def test_a_notebook_keeps_its_backend(tmp_path):
    """Neither importing nor drawing takes inline figures away."""
    before = matplotlib.get_backend()
    matplotlib.use('svg')
    try:
        for module in (figure, curves):
            importlib.reload(module)
        draw_rows(['picture'], [[torch.zeros(4, 4, 3)]], tmp_path / 'figure.png')
        assert matplotlib.get_backend() == 'svg'
    finally:
        matplotlib.use(before)


def test_rows_of_different_shapes(tmp_path):
    red, green = (torch.zeros(*shape, 3) for shape in ((20, 30), (40, 30)))
    red[..., 0], green[..., 1] = 1, 1
    maps = torch.zeros(2, 3), torch.ones(4, 3)
    draw_rows(['picture', 'map'], [[red, maps[0]], [green, maps[1]]], tmp_path / 'new/figure.png')
    drawn = np.asarray(Image.open(tmp_path / 'new/figure.png').convert('RGB')).astype(int)
    areas = {name: (np.abs(drawn - colour).sum(-1) < 12).sum() for name, colour in dict(
        red=(255, 0, 0), green=(0, 255, 0), dark=(0, 0, 4), bright=(252, 255, 164)).items()}
    assert areas['green'] == pytest.approx(2 * areas['red'], rel=0.1)
    assert areas['dark'] == pytest.approx(areas['red'], rel=0.1)
    assert areas['bright'] == pytest.approx(areas['green'], rel=0.1)
