"""The demo data in its three layouts, and a user's own images."""
import json
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

TOOLS = Path(__file__).parents[2] / 'tools'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Demo data of 60 scans and 10 scenes."""
    out = tmp_path_factory.mktemp('demo')
    make = runpy.run_path(str(TOOLS / 'make_demo_data.py'))['make_demo_data']
    return out, make(out, copies=1, num_scenes=10, max_scans=60)


@pytest.fixture(scope='module')
def prepare():
    return runpy.run_path(str(TOOLS / 'prepare_images.py'))['prepare']


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
        coco = json.loads((out / 'coco' / 'annotations' / f'instances_{split}.json').read_text())
        images = {image['id']: image for image in coco['images']}
        assert len(images) == counts[f'coco {split}']
        assert [category['name'] for category in coco['categories']] == list('0123456789')
        ids = [annotation['id'] for annotation in coco['annotations']]
        assert len(ids) == len(set(ids)) > 2 * len(images)
        for annotation in coco['annotations']:
            image = images[annotation['image_id']]
            assert cv2.imread(str(out / 'coco' / split / image['file_name'])).shape == (
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
    make = runpy.run_path(str(TOOLS / 'make_demo_data.py'))['make_demo_data']
    make(tmp_path, copies=1, num_scenes=10, max_scans=60)
    for path in (path for path in tmp_path.rglob('*') if path.is_file()):
        assert path.read_bytes() == (data[0] / path.relative_to(tmp_path)).read_bytes(), path


def test_no_scan_and_no_region_in_both_splits():
    tool = runpy.run_path(str(TOOLS / 'make_demo_data.py'))
    scans, regions = tool['load_scans'](0.2), tool['load_photographs'](0.2)
    known = {scan.tobytes() for scan in scans['train'][0]}
    assert len(known) == 4000 and len(scans['val'][0]) == 1000
    assert not known & {scan.tobytes() for scan in scans['val'][0]}
    for train, val in zip(regions['train'], regions['val'], strict=True):
        assert train.shape[0] == val.shape[0]  # side by side in the photograph
        assert train.base is val.base and train.shape[1] > 3 * val.shape[1]


def save(path, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(256, size=(*size[::-1], 3), dtype=np.uint8)
                    ).save(path)


def test_own_images_without_classes(tmp_path, prepare):
    for i in range(5):
        save(tmp_path / 'own' / 'deep' / f'{i}.png', (400, 300))
    assert prepare(tmp_path / 'own', tmp_path / 'out') == {'train': 5, 'classes': 0}
    sizes = {Image.open(path).size for path in (tmp_path / 'out' / 'train').rglob('*.jpg')}
    assert sizes == {(128, 96)} and not (tmp_path / 'out' / 'val').exists()


def test_own_images_in_classes(tmp_path, prepare):
    for name in ('cat', 'dog'):
        for i in range(10):
            save(tmp_path / 'own' / name / f'{i}.png')
    counts = prepare(tmp_path / 'own', tmp_path / 'out')
    assert counts == {'train': 16, 'val': 4, 'classes': 2}
    assert len(list((tmp_path / 'out' / 'val' / 'dog').iterdir())) == 2
    assert Image.open(next((tmp_path / 'out').rglob('*.jpg'))).size == (40, 30)  # small ones stay


def test_own_split_is_kept(tmp_path, prepare):
    for split, number in (('train', 4), ('val', 3)):
        for name in ('cat', 'dog'):
            for i in range(number):
                save(tmp_path / 'own' / split / name / f'{i}.png')
    assert prepare(tmp_path / 'own', tmp_path / 'out') == {'train': 8, 'val': 6, 'classes': 2}


def test_own_images_at_most(tmp_path, prepare):
    for i in range(20):
        save(tmp_path / 'own' / f'{i}.png')
    assert prepare(tmp_path / 'own', tmp_path / 'out', max_images=5)['train'] == 5


def test_own_images_missing_or_bad(tmp_path, prepare):
    with pytest.raises(FileNotFoundError, match='there is no folder'):
        prepare(tmp_path / 'own', tmp_path / 'out')
    (tmp_path / 'own').mkdir()
    with pytest.raises(FileNotFoundError, match='has no images'):
        prepare(tmp_path / 'own', tmp_path / 'out')
    save(tmp_path / 'own' / 'good.png')
    (tmp_path / 'own' / 'bad.png').write_bytes(b'bad')
    with pytest.raises(RuntimeError, match='1 of 2 images are unreadable: .*bad.png'):
        prepare(tmp_path / 'own', tmp_path / 'out')
