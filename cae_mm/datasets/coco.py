"""Do the annotations of a COCO file fit its pictures and the classes?"""
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log


def check_coco(dataset: BaseDataset, masks: bool = False) -> None:
    """Check the categories, annotations and pictures of a COCO file; log what mmdet drops.

    Args:
        dataset (BaseDataset): mmdet's ``CocoDataset``, which need not be initialised.
        masks (bool): whether the outlines of the objects are needed.

    Raises:
        FileNotFoundError: when the annotation file, or a picture that it names, is missing.
        ValueError: when it is no such file, its categories are not the classes of the data set in
            their order, an annotation lacks something, or there is nothing to train on.
    """
    path, classes = dataset.ann_file, dataset.metainfo['classes']
    content = _read_coco(path)
    check_categories(path, [category['name'] for category in content['categories']], classes)
    images = {image['id']: image for image in content['images']}
    paths = [os.path.join(dataset.data_prefix['img'], image['file_name']) for image in images.values()]
    if missing := missing_files(paths):
        raise FileNotFoundError(f'{path}: {len(missing)} of {len(paths)} pictures are missing, the '
                                f'first is {missing[0]}: set data_root, or data_prefix.img')
    known = {category['id'] for category in content['categories'] if category['name'] in classes}
    annotated, dropped, unmasked = set(), Counter(), 0
    for annotation in content.get('annotations', ()):
        if reason := _why_dropped(annotation, images, known):
            dropped[reason] += 1
        else:
            annotated.add(annotation['image_id'])
            unmasked += masks and not annotation.get('segmentation')
    if unmasked:
        raise ValueError(f'{path}: {unmasked} annotations have no segmentation, which the mask head '
                         'learns: outline these objects too, or take a model without masks')
    if not annotated and not dataset.test_mode:
        raise ValueError(f'{path}: none of the {len(images)} pictures has an annotation of the '
                         f'{len(classes)} classes that mmdet keeps: there is nothing to train on. '
                         f'Dropped: {dict(dropped)}')
    print_log('; '.join([f'{path}: {len(images)} pictures, {len(images) - len(annotated)} without '
                         'annotations', *(f'{number} annotations {reason} are dropped'
                                          for reason, number in dropped.items())]), 'current')


def _read_coco(path: str) -> dict:
    if not os.path.isfile(path):
        raise FileNotFoundError(f'there is no annotation file {path}: set data_root, or ann_file of the '
                                'data set and of its metric')
    with open(path, encoding='utf-8') as file:
        try:
            content = json.load(file)
        except ValueError as error:
            raise ValueError(f'{path} is not JSON: {error}') from error
    needed = dict(images=('id', 'file_name', 'height', 'width'), categories=('id', 'name'),
                  annotations=('image_id', 'category_id', 'bbox', 'area'))
    for key, fields in needed.items():
        if not isinstance(content, dict) or key != 'annotations' and not content.get(key):
            raise ValueError(f'{path} is not a COCO annotation file: it has no {key}')
        for entry in content.get(key, ()):
            if lacking := [field for field in fields if entry.get(field) is None]:
                raise ValueError(f'{path}: {lacking[0]!r} is missing in the {key}: {str(entry)[:200]}')
    return content


def check_categories(path: str, found: list[str], classes: Sequence[str]) -> None:
    """The categories of a COCO file must be the classes: mmdet drops others, and takes the file's order.

    Categories beyond the classes may be there: their objects are left out.

    Raises:
        ValueError: naming what is missing, or the first two in another order.
    """
    common = [name for name in found if name in classes]
    if common == list(classes):
        return
    absent = [name for name in classes if name not in found]
    what = (f'has no category {_some(absent)}, of which annotations are expected; it has {_some(found)}'
            if absent else f'has the categories in the order {_some(common)}, the data set expects '
            f'{_some(classes)}')
    raise ValueError(f'{path} {what}. mmdet would drop or mistake annotations: --cfg-options '
                     f'classes={path} takes the names, their order and number from the file')


def _some(names: Sequence[str]) -> str:
    return ', '.join(map(repr, names[:6])) + (f', ... ({len(names)})' if len(names) > 6 else '')


def _why_dropped(annotation: dict, images: dict, known: set) -> str:
    """What mmdet does not keep, '' for the rest."""
    if annotation['category_id'] not in known:
        return 'of other categories'
    image = images.get(annotation['image_id'])
    if image is None:
        return 'of unknown pictures'
    if annotation.get('ignore'):
        return 'to be ignored'
    x, y, width, height = annotation['bbox']
    inside = (min(x + width, image['width']) > max(x, 0)
              and min(y + height, image['height']) > max(y, 0))
    if inside and min(width, height) >= 1 and annotation['area'] > 0:
        return ''
    return 'of no size, or outside their picture,'


def missing_files(paths: Iterable[str]) -> list[str]:
    """Those that do not exist; each folder is listed once, which is fast for many files."""
    listed, missing = {}, []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in listed:
            listed[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in listed[folder]:
            missing.append(path)
    return missing
