"""Files that cannot be read are told from samples that are left out on purpose, in every task."""
import io
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import BaseLoop
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from torch.utils.data import DataLoader

from cae_mm.datasets import BadFilesHook, EpochSampler, ReproducibleDataset, UnreadableFile
from cae_mm.datasets.reader import guard

LOAD = dict(type='LoadImageFromFile')


@TRANSFORMS.register_module(force=True)
class LeaveOut:
    """Leaves out every picture whose number is odd, as a filter of annotations may."""

    def __call__(self, results):
        return None if int(results['img_path'][-7:-4]) % 2 else results


@TRANSFORMS.register_module(force=True)
class Shift:
    """Adds a random number to the picture."""

    def __call__(self, results):
        results['img'] = results['img'] + np.random.rand()
        return results


@pytest.fixture
def dataset(image_folder):
    """A function that gives the config of a data set of 20 pictures for a task."""
    def make(task, bad=(), steps=()):
        folder = image_folder(20, bad)
        pack = dict(cls='PackInputs', det='PackDetInputs', seg='PackSegInputs')
        init_default_scope({'det': 'mmdet', 'seg': 'mmseg'}.get(task, 'mmpretrain'))
        cfg = dict(data_root=str(folder), pipeline=[LOAD, *steps, dict(type=pack[task])])
        names = [f'class{i % 2}/{i:03}.png' for i in range(20)]
        if task == 'cls':
            return dict(cfg, type='CustomDataset')
        if task == 'seg':
            lines = folder / 'list.txt'
            lines.write_text('\n'.join(name[:-4] for name in names))
            return dict(cfg, type='BaseSegDataset', ann_file='list.txt', img_suffix='.png',
                        data_prefix=dict(img_path=''), metainfo=dict(classes=['a']))
        box = dict(iscrowd=0, category_id=1, bbox=[1, 1, 9, 9], area=81)
        (folder / 'coco.json').write_text(json.dumps(dict(
            images=[dict(id=i, file_name=name, height=24, width=20) for i, name in enumerate(names)],
            annotations=[dict(box, id=i, image_id=i) for i in range(20)],
            categories=[dict(id=1, name='a')])))
        return dict(cfg, type='CocoDataset', ann_file='coco.json', data_prefix=dict(img=''),
                    metainfo=dict(classes=['a']))
    return make


def read(dataset, workers=0, epoch=0):
    sampler = EpochSampler(dataset)
    sampler.set_epoch(epoch)
    loader = DataLoader(dataset, 5, sampler=sampler, num_workers=workers, collate_fn=pseudo_collate)
    return [image for batch in loader for image in batch['inputs']]


def same(first, second):
    return len(first) == len(second) and all(map(torch.equal, first, second))


@pytest.mark.parametrize('task', ['cls', 'det', 'seg'])
@pytest.mark.parametrize('workers', [0, 2])
def test_bad_files_of_all_tasks(dataset, task, workers):
    cfg = dataset(task, bad=[6])
    data = ReproducibleDataset(cfg)
    path = data.get_data_info(0)['img_path'].rsplit('/', 2)[0] + '/class1/007.png'
    open(path, 'wb').close()  # empty: OpenCV raises, where for the other it gives nothing
    assert len(read(data, workers)) == 20
    assert sorted(name[-7:] for name in data.bad_files()) == ['006.png', '007.png']
    assert all(data.bad_files().values())


@pytest.mark.parametrize('task', ['cls', 'det', 'seg'])
def test_half_a_jpeg_is_bad_in_all_tasks(dataset, task):
    data = ReproducibleDataset(dataset(task))
    path = data.get_data_info(7)['img_path']
    picture = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 20, 3), np.uint8)).save(picture, 'jpeg')
    Path(path).write_bytes(picture.getvalue()[:-300])
    assert len(read(data)) == 20
    assert list(data.bad_files()) == [path] and 'truncated' in data.bad_files()[path]


@pytest.mark.parametrize('sample', [False, True])
def test_a_picture_of_another_size_than_its_boxes(dataset, sample):
    data = ReproducibleDataset(dataset('det'))
    path = data.get_data_info(7)['img_path']
    Image.new('RGB', (24, 20)).save(path)
    guard(data.dataset)
    with pytest.raises(ValueError, match='class1/007.png has 24x20 pixels, its annotations 20x24'):
        data[7] if sample else read(data)


def test_label_maps_are_read_with_their_pictures(dataset, tmp_path):
    maps = tmp_path / 'maps'
    cfg = dict(dataset('seg', steps=[dict(type='LoadAnnotations')]),
               data_prefix=dict(img_path='', seg_map_path=str(maps)), seg_map_suffix='.png')
    for i in range(20):
        path = maps / f'class{i % 2}/{i:03}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('L', (20, 24)).save(path)
    (maps / 'class1/003.png').write_bytes((maps / 'class1/003.png').read_bytes()[:45])
    (maps / 'class0/004.png').unlink()
    os.mkfifo(maps / 'class0/004.png')
    data = ReproducibleDataset(cfg)
    assert len(read(data)) == 20
    bad = data.bad_files()
    assert sorted(path[-7:] for path in bad) == ['003.png', '004.png']
    assert all('.png is unreadable' in reason and str(maps) in reason for reason in bad.values())
    Image.new('L', (24, 20)).save(maps / 'class1/005.png')
    with pytest.raises(ValueError, match='images/class1/005.png has 20x24 pixels, its .*005.png 24x20'):
        data[5]


def test_samples_left_out_are_not_bad(dataset):
    data = ReproducibleDataset(dataset('cls', steps=[dict(type='LeaveOut'), dict(type='Shift')]))
    once = read(data)
    assert len(once) == 20 and same(once, read(data, workers=2)) and data.bad_files() == {}
    assert not same(once, read(data, epoch=1))


def test_an_error_of_a_later_step_is_none_of_the_file(dataset):
    data = ReproducibleDataset(dataset('cls', steps=[dict(type='CenterCrop', crop_size=(8, 8)),
                                                     dict(type='Resize', scale=(0, 8))]))
    with pytest.raises(Exception, match='resize') as caught:
        data[0]
    assert not isinstance(caught.value, UnreadableFile) and data.bad_files() == {}


@pytest.mark.parametrize('wrapper', [
    lambda cfg: dict(type='ConcatDataset', datasets=[cfg, dict(cfg, indices=5)]),
    lambda cfg: dict(type='RepeatDataset', times=2, dataset=cfg),
    lambda cfg: dict(type='RepeatDataset', times=2,
                     dataset=dict(type='ConcatDataset', datasets=[cfg, cfg])),
    lambda cfg: dict(type='ClassBalancedDataset', oversample_thr=0.9, dataset=cfg)])
def test_wrappers(dataset, wrapper):
    inner = dataset('cls', bad=[6], steps=[dict(type='Shift')])
    data = ReproducibleDataset(wrapper(inner))
    once = read(data, epoch=3)
    assert len(once) == len(data) > 20
    assert same(once, read(data, workers=2, epoch=3)) and not same(once, read(data, epoch=2))
    assert {path[-7:] for path in data.bad_files()} == {'006.png'}
    assert data.get_data_info(len(data) + 3)['img_path'] == data.get_data_info(3)['img_path']
    assert data.metainfo['classes'] == ('class0', 'class1')


@pytest.mark.parametrize('task, mosaic', [
    ('det', dict(type='Mosaic', img_scale=(16, 16))),
    ('seg', dict(type='RandomMosaic', prob=1., img_scale=(16, 16)))])
def test_mixed_images(dataset, task, mosaic):
    cfg = dataset(task, bad=[6])
    pack = cfg['pipeline'].pop()
    if task == 'det':
        cfg['pipeline'].append(dict(type='LoadAnnotations', with_bbox=True))
    else:
        cfg = dict(type='ConcatDataset', datasets=[cfg])
    data = ReproducibleDataset(dict(type='MultiImageMixDataset', dataset=cfg, pipeline=[mosaic, pack]))
    once = read(data, epoch=1)
    assert once[0].shape == (3, 32, 32)
    assert same(once, read(data, workers=2, epoch=1)) and not same(once, read(data))
    assert {path[-7:] for path in data.bad_files()} == {'006.png'}
    assert data.num_files == 20 and data.get_data_info(25)['img_path'].endswith('005.png')


@pytest.mark.parametrize('workers', [0, 1])
def test_a_bad_file_stops_an_evaluation(image_folder, config, workers):
    class Loop(BaseLoop):
        run = None

    data = CustomDataset(**{key: value for key, value in config(image_folder(20, bad=[6])).items()
                            if key != 'type'})
    loader = DataLoader(data, 5, num_workers=workers, collate_fn=pseudo_collate)
    Loop.__abstractmethods__ = frozenset()
    BadFilesHook().before_run(SimpleNamespace(_val_loop=Loop(None, loader), _test_loop=dict()))
    with pytest.raises(UnreadableFile, match='class0/006.png cannot be read .OSError'):
        list(loader)
