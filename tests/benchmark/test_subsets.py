"""Parts of data sets, in their layouts."""
import json
from pathlib import Path

import pytest
from mmengine.config import Config

from cae_mm.benchmark.data import Data
from cae_mm.benchmark.subsets import make, short

CONFIGS = Path(__file__).parents[2] / 'configs'
FIRST = {part: (part, lambda number: number < 2) for part in ('train', 'val')}
HELD = {'train': ('train', lambda number: number % 2), 'val': ('train', lambda number: not number % 2)}


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*.jpg'))


def test_classes(tmp_path):
    touch(*(tmp_path / 'data' / part / label / f'{number}.jpg' for part in ('train', 'val')
            for label in 'ab' for number in range(4)))
    few = make('imagenet', tmp_path / 'data', tmp_path / 'few', FIRST)
    assert names(tmp_path / 'few') == [f'{part}/{label}/{number}.jpg' for part in ('train', 'val')
                                       for label in 'ab' for number in (0, 1)]
    assert (few.classes, few.images('train'), few.images('val')) == (2, 4, 4)
    make('imagenet', tmp_path / 'data', tmp_path / 'held', HELD)
    assert names(tmp_path / 'held') == [
        *(f'train/{label}/{number}.jpg' for label in 'ab' for number in (1, 3)),
        *(f'val/{label}/{number}.jpg' for label in 'ab' for number in (0, 2))]
    assert (tmp_path / 'held/val/a/0.jpg').read_bytes() == b'0.jpg'
    make('imagenet', tmp_path / 'data', tmp_path / 'held', HELD)  # again, where all is there


def test_label_maps(tmp_path):
    touch(tmp_path / 'data/classes.txt', *(
        tmp_path / f'data/{side}/{part}/{number}.{kind}' for part in ('training', 'validation')
        for side, kind in (('images', 'jpg'), ('annotations', 'png')) for number in range(4)))
    held = make('ade20k', tmp_path / 'data', tmp_path / 'held', HELD)
    assert names(tmp_path / 'held') == ['images/training/1.jpg', 'images/training/3.jpg',
                                        'images/validation/0.jpg', 'images/validation/2.jpg']
    assert (tmp_path / 'held/annotations/validation/2.png').is_file() and held.images('val') == 2
    assert (tmp_path / 'held/classes.txt').is_file()
    assert held.validation == tmp_path / 'held/images/validation'


def test_objects(tmp_path):
    for part in ('train', 'val'):
        touch(*(tmp_path / f'data/{part}2017/{number}.jpg' for number in range(4)))
        path = tmp_path / f'data/annotations/instances_{part}2017.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(dict(
            images=[dict(id=number, file_name=f'{number}.jpg') for number in range(4)],
            annotations=[dict(id=number, image_id=number // 2) for number in range(8)], categories=[])))
    make('coco', tmp_path / 'data', tmp_path / 'held', HELD)
    found = json.loads((tmp_path / 'held/annotations/instances_val2017.json').read_text())
    assert [image['id'] for image in found['images']] == [0, 2]
    assert [each['image_id'] for each in found['annotations']] == [0, 0, 2, 2]
    assert (tmp_path / 'held/val2017/2.jpg').is_file()
    assert Data(tmp_path / 'data').validation == tmp_path / 'data/val2017'


@pytest.mark.parametrize('config, options', [
    ('cls/finetune_cae_vitb_100e', ('train_cfg.max_epochs=1', 'param_scheduler.warmup_epochs=0')),
    ('det/mask_rcnn_cae_vitb_1x_coco', ('train_cfg.max_epochs=1', 'param_scheduler.0.end=2')),
    ('seg/upernet_cae_vitb_160k_ade20k', ('train_cfg.max_iters=4', 'param_scheduler.0.end=2'))])
def test_short_trainings(config, options):
    assert short(Config.fromfile(CONFIGS / f'{config}.py')) == options
