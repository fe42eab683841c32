"""Do label maps, as ADE20K has them, fit their pictures and the classes?"""
import os
from collections import Counter
from collections.abc import Sequence

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from cae_mm.disk import log_used, read_regular, suffix_of, walk
from cae_mm.transforms.loading import MAX_BYTES, LoadRGBImage, explain, open_image

from .coco import missing_files

# Maps that are read before a run; the others are checked when they are used.
SAMPLE = 200
IGNORED = 255  # by mmseg's losses and metrics


def check_label_maps(dataset: BaseDataset) -> None:
    """Check that each picture has a label map, and the labels of up to ``SAMPLE`` of the maps.

    Args:
        dataset (BaseDataset): one of mmseg's, which need not be initialised.

    Raises:
        FileNotFoundError: when the folder of pictures, or a label map, is missing.
        ValueError: when there are no pictures, the classes are not known, or a map is unreadable, of
            another size than its picture, holds other labels than the classes, or all of them are void.
    """
    folder, suffix = dataset.data_prefix['img_path'], dataset.img_suffix
    if not os.path.isdir(folder):
        raise FileNotFoundError(f'there is no folder {folder}: set data_root, or data_prefix')
    others = Counter(suffix_of(path) for path, is_folder in walk(folder, {})
                     if not is_folder and not path.endswith(suffix))
    pairs = dataset.load_data_list()
    log_used(folder, len(pairs), others)
    if not pairs:
        raise ValueError(f'there is no picture *{suffix} in {folder}: set data_prefix, or img_suffix')
    if dataset.metainfo.get('classes') is None:
        raise ValueError(f'the classes of {folder} are not known: --cfg-options classes=FILE')
    for key, what in dict(img_path='pictures', seg_map_path='label maps').items():
        paths = [pair[key] for pair in pairs]
        if missing := missing_files(paths):
            raise FileNotFoundError(f'{len(missing)} of {len(paths)} {what} are missing, the first is '
                                    f'{missing[0]}: set data_root, data_prefix or seg_map_suffix')
    names = dataset.METAINFO['classes'] if dataset.label_map else dataset.metainfo['classes']
    seen, sample = set(), np.linspace(0, len(pairs) - 1, min(SAMPLE, len(pairs))).astype(int)
    for pair in (pairs[i] for i in sample):
        seen |= _labels_of(pair, len(names), dataset.reduce_zero_label)
    if not seen:
        raise ValueError(f'{len(sample)} of {len(pairs)} label maps, such as {pairs[0]["seg_map_path"]}, '
                         f'hold nothing but void. {_convention(len(names), dataset.reduce_zero_label)}')
    print_log(f'{folder}: {len(pairs)} pictures with label maps; in {len(sample)} of these '
              f'{len(seen)} of {len(names)} classes', 'current')


def read_labels(path: str) -> np.ndarray:
    """Read a label map, whole or not at all.

    Returns:
        np.ndarray: (H, W), or with channels (H, W, C).

    Raises:
        ValueError: says why it cannot be read.
    """
    data = b''
    try:
        data = read_regular(path, MAX_BYTES)
        with open_image(data) as image:
            return np.asarray(image)
    except Exception as error:  # decoders raise nearly every type on a damaged file
        raise ValueError(f'{path} is unreadable: {explain(error, data)}') from error


def _labels_of(pair: dict, number: int, reduce_zero_label: bool) -> set[int]:
    path = pair['seg_map_path']
    labels = read_labels(path)
    if labels.ndim != 2:
        raise ValueError(f'{path} is a colour picture, not a label map: write the label of each pixel '
                         'into a picture of one channel')
    picture = LoadRGBImage()(dict(img_path=pair['img_path']))  # training passes an unreadable one by
    if picture and labels.shape != (shape := picture['img_shape']):
        raise ValueError(f'{path} has {labels.shape[1]}x{labels.shape[0]} pixels, its picture '
                         f'{shape[1]}x{shape[0]}')
    first, values = int(reduce_zero_label), set(np.unique(labels).tolist())
    valid = values & set(range(first, first + number))
    if wrong := sorted(values - valid - {IGNORED} - ({0} if reduce_zero_label else set())):
        raise ValueError(f'{path} has the labels {wrong[:6]}. {_convention(number, reduce_zero_label)}')
    return valid


def _convention(number: int, reduce_zero_label: bool) -> str:
    void, last = ('0 and 255', number) if reduce_zero_label else ('255', number - 1)
    return (f'With {number} classes and reduce_zero_label={reduce_zero_label} they are '
            f'{int(reduce_zero_label)}..{last}, and {void} for void: set classes=FILE with all names, or '
            'reduce_zero_label of the data set')


def check_labels(samples: Sequence, dataset: BaseDataset) -> None:
    """Check the label maps of a batch, as they were loaded; samples without one pass.

    Args:
        samples (Sequence): mmseg's data samples, or lists of them.
        dataset (BaseDataset): what they are from.

    Raises:
        ValueError: naming the label and the file.
    """
    number = len(dataset.metainfo['classes'])
    for sample in samples:
        if isinstance(sample, Sequence):
            check_labels(sample, dataset)
        elif 'gt_sem_seg' in sample:
            labels = sample.gt_sem_seg.data
            wrong = labels[(labels >= number) & (labels != IGNORED)]
            if len(wrong):
                first = int(dataset.metainfo.get('reduce_zero_label') or 0)
                raise ValueError(f'{sample.metainfo.get("seg_map_path")} has the label '
                                 f'{int(wrong[0]) + first}. {_convention(number, bool(first))}')
