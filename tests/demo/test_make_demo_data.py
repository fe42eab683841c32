"""The demo data in its three layouts."""
import json

import cv2
import numpy as np
import pytest

from demo.make_demo_data import load_photographs, load_scans, make_demo_data


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Demo data of 60 scans and 10 scenes."""
    out = tmp_path_factory.mktemp('demo')
    return out, make_demo_data(out, copies=1, num_scenes=10, max_scans=60)


def test_imagenet_layout(data):
    out, counts = data
    for split in ('train', 'val'):
        files = list((out / 'imagenet' / split).glob('*/*.jpg'))
        assert len(files) == counts[f'imagenet {split}'] == 60
        assert {path.parent.name for path in files} == set('0123456789')
    image = cv2.imread(str(files[0]))
    assert image.shape == (64, 64, 3) and image.std() > 10


def test_coco_layout(data):
    out, counts = data
    for split in ('train', 'val'):
        coco = json.loads((out / 'coco' / 'annotations' / f'instances_{split}2017.json').read_text())
        images = {image['id']: image for image in coco['images']}
        assert len(images) == counts[f'coco {split}']
        assert [category['name'] for category in coco['categories']] == list('0123456789')
        ids = [annotation['id'] for annotation in coco['annotations']]
        assert len(ids) == len(set(ids)) > 2 * len(images)
        for annotation in coco['annotations']:
            image = images[annotation['image_id']]
            assert cv2.imread(str(out / 'coco' / f'{split}2017' / image['file_name'])).shape == (
                image['height'], image['width'], 3)
            assert annotation['category_id'] in range(1, 11) and annotation['iscrowd'] == 0
            mask = np.zeros((image['height'], image['width']), np.uint8)
            for outline in annotation['segmentation']:
                assert len(outline) >= 6
                cv2.fillPoly(mask, [np.int32(outline).reshape(-1, 2)], 1)
            x, y, width, height = map(int, annotation['bbox'])
            ys, xs = np.nonzero(mask)
            # Specks and holes make small differences between the outline and the scan.
            assert x <= xs.min() and xs.max() < x + width
            assert y <= ys.min() and ys.max() < y + height
            assert annotation['area'] <= 1.05 * mask.sum()


def test_ade_layout(data):
    out, counts = data
    classes = (out / 'ade' / 'classes.txt').read_text().split()
    assert classes == ['background', *'0123456789']
    seen = set()
    for split, name in (('train', 'training'), ('val', 'validation')):
        images = sorted((out / 'ade' / 'images' / name).iterdir())
        assert len(images) == counts[f'ade {split}']
        for image in images:
            labels = cv2.imread(str(out / 'ade' / 'annotations' / name / f'{image.stem}.png'), -1)
            assert labels.dtype == np.uint8 and labels.shape == cv2.imread(str(image)).shape[:2]
            assert (labels == 1).mean() > 0.4 and 0 < (labels == 0).mean() < 0.3
            seen |= set(np.unique(labels))
    assert {0, 1} < seen <= set(range(12)) and len(seen) > 8


def test_same_pixels_again(data, tmp_path):
    make_demo_data(tmp_path, copies=1, num_scenes=10, max_scans=60)
    for path in (path for path in tmp_path.rglob('*') if path.is_file()):
        assert path.read_bytes() == (data[0] / path.relative_to(tmp_path)).read_bytes(), path


def test_no_scan_and_no_region_in_both_splits():
    scans, regions = load_scans(0.2), load_photographs(0.2)
    known = {scan.tobytes() for scan in scans['train'][0]}
    assert len(known) == 4000 and len(scans['val'][0]) == 1000
    assert not known & {scan.tobytes() for scan in scans['val'][0]}
    for train, val in zip(regions['train'], regions['val'], strict=True):
        assert train.shape[0] == val.shape[0]  # side by side in the photograph
        assert train.base is val.base and train.shape[1] > 3 * val.shape[1]
