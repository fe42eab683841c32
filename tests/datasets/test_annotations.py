"""Annotations that do not fit are refused before a run, with the file, the value and the way out."""
import json
import os

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image
from pycocotools import mask

from cae_mm.datasets import annotations, label_maps


@pytest.fixture
def coco(tmp_path):
    """A config of three pictures, the last one without annotations, and a function that changes it."""
    init_default_scope('mmdet')
    path = tmp_path / 'train.json'
    content = dict(
        images=[dict(id=i, file_name=f'sub/{i}.jpg', height=20, width=30) for i in range(3)],
        categories=[dict(id=i, name=name) for i, name in ((7, 'cat'), (3, 'dog'), (5, 'cow'))],
        annotations=[dict(id=i, image_id=i, category_id=7, bbox=[2, 2, 9, 9], area=81.,
                          segmentation=[[2, 2, 11, 2, 11, 11]]) for i in range(2)])
    (tmp_path / 'sub').mkdir()
    for i in range(3):
        (tmp_path / f'sub/{i}.jpg').touch()
    cfg = Config(dict(
        train_dataloader=dict(dataset=dict(type='RepeatDataset', times=2, dataset=dict(
            type='CocoDataset', data_root=str(tmp_path), ann_file='train.json', data_prefix=dict(img=''),
            metainfo=dict(classes=['cat', 'dog']),
            pipeline=[dict(type='LoadAnnotations', with_mask=True)]))),
        train_evaluator=dict(type='CocoMetric', ann_file=str(path))))

    def check(change=lambda content: None, **dataset):
        change(content)
        path.write_text(json.dumps(content))
        cfg.train_dataloader.dataset.dataset.update(dataset)
        annotations.check_annotations(cfg, 'train', 'val')

    check.cfg = cfg
    return check


def test_what_mmdet_drops_is_counted(coco, capfd):
    def change(content):
        extra = [dict(bbox=[2, 2, 0, 5]), dict(bbox=[30, 2, 4, 4]), dict(category_id=5), dict(image_id=99)]
        content['annotations'] += [dict(content['annotations'][0], id=9 + i, **fields)
                                   for i, fields in enumerate(extra)]

    coco(change)
    logged = capfd.readouterr()
    for text in ('3 pictures, 1 without annotations', '2 annotations of no size',
                 '1 annotations of other categories', '1 annotations of unknown pictures'):
        assert text in logged.out + logged.err


@pytest.mark.parametrize('change, error', [
    (lambda c: c['categories'][0].update(name='kitty'), "no category 'cat', .*has 'kitty', .*classes="),
    (lambda c: c['categories'].reverse(), "in the order 'dog', 'cat', .* expects 'cat', 'dog'"),
    (lambda c: c['annotations'][1].pop('segmentation'), '1 annotations have no segmentation'),
    (lambda c: c['annotations'][1].pop('bbox'), "'bbox' is missing in the annotations: {'id': 1"),
    (lambda c: c['annotations'].clear(), 'none of the 3 pictures has an annotation of the 2 classes'),
    (lambda c: c.pop('categories'), 'it has no categories'),
], ids=['renamed', 'order', 'segmentation', 'bbox', 'nothing', 'not COCO'])
def test_coco_files_that_do_not_fit(coco, change, error):
    with pytest.raises(ValueError, match=error):
        coco(change)


TRIANGLE = [2, 2, 11, 2, 11, 11]


@pytest.mark.parametrize('field, value, error', [
    ('bbox', [1, 2, 3], r'annotation 1: bbox=\[1, 2, 3\] is not x, y, width and height'),
    ('bbox', ['1', 2, 3, 4], r"bbox=\['1', 2, 3, 4\]"), ('bbox', [True, 2, 3, 4], 'bbox='),
    ('bbox', [1, 2, float('inf'), 4], 'bbox=.*inf'), ('bbox', [1, 2, float('nan'), 4], 'bbox=.*nan'),
    ('bbox', [1, 2, -3, 4], 'bbox='), ('bbox', [1, 2, 10**400, 4], 'bbox=.*1000'),
    ('bbox', [1, 1e9, 3, 4], 'bbox='),
    ('bbox', '1234', "bbox='1234' is of a wrong type in the annotations: {'id': 1"),
    ('bbox', {}, 'bbox={}'),
    ('area', '9', "area='9'"), ('area', float('nan'), 'area=nan'), ('area', -1, 'area=-1'),
    ('area', True, 'area=True'), ('id', None, "'id' is missing"), ('id', '1', "id='1'"),
    ('id', 0, 'the id 0'),
    ('image_id', None, "'image_id' is missing"), ('image_id', [1], 'image_id='),
    ('image_id', '1', "image_id='1'"),
    ('category_id', '7', "category_id='7'"), ('category_id', 7.0, 'category_id=7.0'),
    ('category_id', True, 'category_id=True'), ('iscrowd', 'yes', "iscrowd='yes'"),
    ('iscrowd', 2, 'iscrowd=2'),
    ('segmentation', [[1, 2, 3, 4]], r'segmentation=\[\[1, 2, 3, 4\]\] has no polygon of three points'),
    ('segmentation', [TRIANGLE + [1]], 'segmentation=.*is not x, y'),
    ('segmentation', TRIANGLE, 'segmentation=2 is'),
    ('segmentation', [TRIANGLE[:-1] + ['9']], "segmentation=.*'9'"),
    ('segmentation', 'abc', "='abc' is neither"),
    ('segmentation', [TRIANGLE[:-1] + [1e7]], 'segmentation=.*in its picture'),
    ('segmentation', dict(size=[20, 30]), 'has no run lengths that make up 20 x 30 pixels'),
    ('segmentation', dict(size=[30, 20], counts=[600]), r'is not of the size of its picture, \[20, 30\]'),
    ('segmentation', dict(size=[20.0, 30.0], counts=[600]), 'is not of the size'),
    *(('segmentation', dict(size=[20, 30], counts=counts), 'has no run lengths') for counts in (
        [599], [-1, 601], [600.0], ['600'], [[600]], 'h', 'ooooooooooooooo', 'é', '', 'ab\0', [10**30]))])
def test_values_of_annotations(coco, field, value, error):
    with pytest.raises(ValueError, match=f'train.json: .*{error}'):
        coco(lambda content: content['annotations'][1].update({field: value}))


def test_run_lengths_of_both_forms(coco):
    counts = [100, 50, 300, 7, 143]
    packed = mask.frPyObjects(dict(size=[20, 30], counts=counts), 20, 30)['counts'].decode()

    def change(form):
        outline = dict(size=[20, 30], counts=form)
        return lambda content: content['annotations'][1].update(segmentation=outline, iscrowd=1)

    coco(change(counts))
    coco(change(packed))
    with pytest.raises(ValueError, match='has no run lengths'):
        coco(change(packed[:-1]))


@pytest.mark.parametrize('change, error', [
    (lambda c: c['images'][1].update(id=0), '2 images have the id 0'),
    (lambda c: c['images'][1].update(height='20'), "height='20' is of a wrong type in the images: {"),
    (lambda c: c['images'][1].update(height=0), 'image 1: 30 x 0 pixels'),
    (lambda c: c['images'][1].update(height=10**9), 'image 1: 30 x 1000000000 pixels'),
    (lambda c: c['images'][1].update(width=30.5), 'width=30.5'),
    (lambda c: c['images'][1].update(file_name=5), 'file_name=5'),
    (lambda c: c['images'].append('x'), "one of the images is 'x'"),
    (lambda c: c['categories'][1].update(name='cat'), "2 categories have the name 'cat'"),
    (lambda c: c['categories'][1].update(id=7), '2 categories have the id 7'),
    (lambda c: c['categories'][1].update(id='3'), "id='3'"),
    (lambda c: c.update(annotations={}), 'it has no annotations'),
    (lambda c: c['annotations'].extend(dict(c['annotations'][0], id=9 + i, bbox=[]) for i in range(14)),
     '(annotation .*){10}; and 4 more$')])
def test_values_of_pictures_and_categories(coco, change, error):
    with pytest.raises(ValueError, match=f'train.json.*{error}'):
        coco(change)


@pytest.mark.parametrize('content, error', [
    (b'{"images": [', 'is not JSON in UTF-8'), (b'[' * 100_000, 'is not JSON in UTF-8: maximum recursion'),
    (b'{"images": "\xff"}', 'is not JSON in UTF-8'), (b'[]', 'it has no images'), (b'', 'is not JSON'),
    (b'\xef\xbb\xbf{}', 'is not JSON'), (b'1' * 5000, 'is not JSON'), (b'null', 'it has no images')])
def test_files_that_are_not_coco(coco, tmp_path, content, error):
    (tmp_path / 'odd.json').write_bytes(content)
    with pytest.raises(ValueError, match=f'odd.json.* {error}'):
        coco(ann_file='odd.json')


def test_an_evaluation_needs_crowds_to_be_told(coco):
    with pytest.raises(ValueError, match="'iscrowd' is missing in the annotations"):
        coco(test_mode=True)
    coco(lambda content: [annotation.update(iscrowd=0) for annotation in content['annotations']])


def test_missing_files(coco, tmp_path):
    (tmp_path / 'sub/1.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'1 of 3 pictures are missing, the first is .*sub/1.jpg'):
        coco()
    with pytest.raises(FileNotFoundError, match='no annotation file .*val.json: set data_root'):
        coco(ann_file='val.json')
    os.mkfifo(tmp_path / 'fifo.json')
    with pytest.raises(OSError, match='fifo.json is a FIFO'):
        coco(ann_file='fifo.json')


def test_a_metric_of_another_file(coco):
    coco.cfg.train_evaluator.ann_file = 'other.json'
    with pytest.raises(ValueError, match='train_evaluator.ann_file=other.json, .*train.json'):
        coco()


def test_unannotated_pictures_can_be_tested(coco):
    coco(lambda content: content.pop('annotations'), test_mode=True)


@pytest.fixture
def ade(tmp_path):
    """A function that checks five pictures with label maps 0..2; its arguments change the data set."""
    init_default_scope('mmseg')
    for folder, suffix in (('images', 'jpg'), ('maps', 'png')):
        (tmp_path / folder).mkdir()
        for i in range(5):
            pixels = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
            Image.fromarray(pixels).save(tmp_path / folder / f'{i}.{suffix}')

    def check(**dataset):
        dataset = dict(
            dict(type='BaseSegDataset', data_root=str(tmp_path), reduce_zero_label=True,
                 data_prefix=dict(img_path='images', seg_map_path='maps'),
                 metainfo=dict(classes=['road', 'sky'])), **dataset)
        annotations.check_annotations(Config(dict(test_dataloader=dict(dataset=dataset))), 'test')

    return check


def test_label_maps_that_fit(ade, capfd):
    ade()
    ade(reduce_zero_label=False, metainfo=dict(classes=['void', 'road', 'sky', 'sea']))
    ade(type='ADE20KDataset', metainfo=dict(classes=['sky', 'wall']))
    logged = ''.join(capfd.readouterr())
    assert '5 pictures with label maps; in 5 of these 2 of 2 classes' in logged
    assert '3 of 4 classes' in logged


@pytest.mark.parametrize('pixels, error', [
    (np.full((3, 4), 3), r'has the labels \[3\]. With 2 classes and reduce_zero_label=True they are 1..2'),
    (np.full((3, 4), 256), r'has the labels \[256\]'),
    (np.full((3, 4, 3), 1), 'is a colour picture'),
    (np.full((4, 3), 1), '3x4 pixels, its picture 4x3'),
], ids=['label', 'beyond a byte', 'colours', 'size'])
def test_a_label_map_that_does_not_fit(ade, tmp_path, pixels, error):
    pixels = pixels.astype(np.uint16 if pixels.max() > 255 else np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'maps/4.png')
    with pytest.raises(ValueError, match=f'4.png.*{error}'):
        ade()


def test_maps_are_sampled_evenly(ade, tmp_path, monkeypatch):
    monkeypatch.setattr(label_maps, 'SAMPLE', 3)
    for i in (1, 3):
        (tmp_path / f'maps/{i}.png').write_text('not read')
    ade()
    (tmp_path / 'maps/4.png').write_text('read')
    with pytest.raises(ValueError, match='4.png is unreadable: UnidentifiedImageError'):
        ade()


def test_other_label_maps_that_do_not_fit(ade, tmp_path):
    with pytest.raises(ValueError, match=r'has the labels \[2\]. .*=False they are 0..1, and 255'):
        ade(reduce_zero_label=False)
    with pytest.raises(ValueError, match='classes of .* not known: --cfg-options classes=FILE'):
        ade(metainfo=None)
    with pytest.raises(ValueError, match=r'no picture \*.tif in '):
        ade(img_suffix='.tif')
    with pytest.raises(FileNotFoundError, match='there is no folder .*nowhere'):
        ade(data_root='nowhere')
    (tmp_path / 'maps/2.png').unlink()
    with pytest.raises(FileNotFoundError, match='1 of 5 label maps are missing, the first is .*2.png'):
        ade()
    for i in range(5):
        Image.fromarray(np.full((3, 4), 255 * (i % 2), np.uint8)).save(tmp_path / f'maps/{i}.png')
    with pytest.raises(ValueError, match='5 of 5 label maps, .* hold nothing but void'):
        ade()


@pytest.mark.parametrize('nested', [False, True])
def test_labels_of_a_batch(nested):
    from mmengine.structures import PixelData
    from mmseg.datasets import BaseSegDataset
    from mmseg.structures import SegDataSample
    data = BaseSegDataset(lazy_init=True, metainfo=dict(classes=['road', 'sky']), reduce_zero_label=True)
    sample = SegDataSample(metainfo=dict(seg_map_path='maps/9.png'))
    samples = [[sample]] if nested else [sample]
    label_maps.check_labels(samples, data)
    for label in (1, 255, 2):
        sample.gt_sem_seg = PixelData(data=torch.full((1, 4, 4), label))
        if label == 2:
            with pytest.raises(ValueError, match='maps/9.png has the label 3'):
                label_maps.check_labels(samples, data)
        else:
            label_maps.check_labels(samples, data)
