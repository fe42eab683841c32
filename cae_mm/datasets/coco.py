"""Do the annotations of a COCO file fit its pictures and the classes?"""
import gc
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from math import isfinite

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from cae_mm.disk import named, read_regular
from cae_mm.transforms.loading import MAX_PIXELS

FIELDS = dict(
    images=dict(id=(int, str), file_name=(str,), height=(int,), width=(int,)),
    categories=dict(id=(int,), name=(str,)),
    annotations=dict(id=(int,), image_id=(), category_id=(int,), bbox=(list,), area=(int, float)))
# So many sides of its picture a box or an outline may lie outside: rasterising takes memory for each pixel.
OUTSIDE = 10


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
    content = _read_coco(path, dataset.test_mode)
    check_categories(path, [category['name'] for category in content['categories']], classes)
    images = {image['id']: image for image in content['images']}
    paths = [os.path.join(dataset.data_prefix['img'], image['file_name']) for image in images.values()]
    if missing := missing_files(paths):
        raise FileNotFoundError(f'{path}: {len(missing)} of {len(paths)} pictures are missing, the '
                                f'first is {missing[0]}: set data_root, or data_prefix.img')
    known = {category['id'] for category in content['categories'] if category['name'] in classes}
    annotated, dropped, unmasked = set(), Counter(), 0
    annotations = content.get('annotations', ())
    problems = chain(map(_wrong_image, images.values()),
                     (_wrong_annotation(annotation, images) for annotation in annotations))
    _refuse(path, [*filter(None, problems)])
    for annotation in annotations:
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


def _read_coco(path: str, tested: bool) -> dict:
    if not os.path.exists(path):
        raise FileNotFoundError(f'there is no annotation file {path}: set data_root, or ann_file of the '
                                'data set and of its metric')
    gc.disable()  # it would go through the growing millions of objects again and again
    try:
        content = json.loads(read_regular(path).decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} is not JSON in UTF-8: {error}') from error
    finally:
        gc.enable()
    for key, fields in FIELDS.items():
        entries = content.get(key, []) if isinstance(content, dict) else None
        if not isinstance(entries, list) or key != 'annotations' and not entries:
            raise ValueError(f'{path} is not a COCO annotation file: it has no {key}')
        if key == 'annotations':
            fields = dict(fields, image_id={type(image['id']) for image in content['images']})
            if tested:
                fields['iscrowd'] = (int, bool)  # COCO's own evaluation needs it
        problems = []
        for entry in entries:
            if type(entry) is not dict:
                problems.append(f'one of the {key} is {entry!r:.200}')
            elif lacking := [field for field in fields if entry.get(field) is None]:
                problems.append(f'{lacking[0]!r} is missing in the {key}: {entry!r:.200}')
            elif wrong := [field for field, types in fields.items() if type(entry[field]) not in types]:
                problems.append(f'{wrong[0]}={entry[wrong[0]]!r:.100} is of a wrong type in the {key}: '
                                f'{entry!r:.200}')
        _refuse(path, problems)
        for field in {'id', 'name'}.intersection(fields):
            numbers = Counter(entry[field] for entry in entries)
            problems += [f'{number} {key} have the {field} {value!r}'
                         for value, number in numbers.items() if number > 1]
        _refuse(path, problems)
    return content


def _refuse(path: str, problems: list[str]) -> None:
    if problems:
        raise ValueError(f'{path}: {named(problems)}')


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


def _wrong_image(image: dict) -> str:
    """What is wrong with the entry of a picture, '' for nothing."""
    height, width = image['height'], image['width']
    if min(height, width) > 0 and height * width <= MAX_PIXELS:
        return ''
    return f'image {image["id"]}: {width} x {height} pixels, which are 1 to {MAX_PIXELS:,}'


def _wrong_annotation(annotation: dict, images: dict) -> str:
    """What is wrong with an annotation, '' for nothing."""
    box, area, where = annotation['bbox'], annotation['area'], f'annotation {annotation["id"]}: '
    image = images.get(annotation['image_id'])
    side = OUTSIDE * max(image['height'], image['width']) if image else 1e9
    if len(box) != 4 or not _numbers(box, side) or box[2] < 0 or box[3] < 0:
        return f'{where}bbox={box!r:.100} is not x, y, width and height in its picture'
    if not 0 <= area < 1e18:
        return f'{where}area={area!r:.100} is no area'
    if annotation.get('iscrowd', 0) not in (0, 1):
        return f'{where}iscrowd={annotation["iscrowd"]!r:.100} is not 0 or 1'
    outline = annotation.get('segmentation')
    if not outline or not image:
        return ''
    if type(outline) is dict:
        wrong = _wrong_rle(outline, image['height'], image['width'])
        return wrong and f'{where}segmentation={outline!r:.100} {wrong}'
    if type(outline) is not list:
        return f'{where}segmentation={outline!r:.100} is neither polygons nor run lengths'
    for polygon in outline:
        if not _numbers(polygon, side) or len(polygon) % 2:
            return f'{where}segmentation={polygon!r:.100} is not x, y, x, y, ... in its picture'
    if max(map(len, outline)) < 6:
        return f'{where}segmentation={outline!r:.100} has no polygon of three points'
    return ''


def _numbers(values: object, most: float) -> bool:
    """Whether it is a list of numbers, not larger than that."""
    return (type(values) is list and {int, float}.issuperset(map(type, values))
            and (not values or -most <= min(values) and max(values) <= most and isfinite(sum(values))))


def _wrong_rle(outline: dict, height: int, width: int) -> str:
    """What is wrong with the run lengths of a mask, '' for nothing: pycocotools trusts them."""
    counts, size = outline.get('counts'), outline.get('size')
    if size != [height, width] or [*map(type, size)] != [int, int]:
        return f'is not of the size of its picture, {[height, width]}'
    counts = _run_lengths(counts) if type(counts) is str else counts
    if (type(counts) is not list or not {int}.issuperset(map(type, counts)) or min(counts, default=-1) < 0
            or sum(counts) != height * width):
        return f'has no run lengths that make up {height} x {width} pixels'
    return ''


def _run_lengths(text: str) -> list[int] | None:
    """COCO's compressed run lengths: 5 bits a character, the lowest first; from the fourth length on it is
    the difference to the one before the last. None for something else."""
    counts, value, shift = [], 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << shift - 4
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return None if shift else counts


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
