"""The short settings of a config, written wherever its data and its model have them."""
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.config import Config

from cae_mm.datasets.annotations import leaf_datasets

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
SIZES = ('train_scales', 'crop_scales', 'crop_size', 'test_scale')
DATA_KEYS = LOADERS + ('val_evaluator', 'test_evaluator', 'custom_hooks', 'default_hooks')


def dicts(node) -> Iterator[dict]:
    """All dictionaries in a part of a config, the outer ones first."""
    if isinstance(node, dict):
        yield node
        node = node.values()
    elif not isinstance(node, (list, tuple)):
        return
    for child in node:
        yield from dicts(child)


def set_data_root(cfg: Config, root: str, old_root: str | None) -> None:
    """Put ``root`` wherever data loaders, evaluators, hooks and ``classes`` used ``old_root``."""
    old = old_root.rstrip('/') if old_root else None

    def moved(key, value):
        if isinstance(value, str):
            if old is None:
                return root if key == 'data_root' else value
            if value.rstrip('/') == old:
                return root
            if value.startswith(old + '/'):
                return str(Path(root) / value[len(old) + 1:])
        return value

    cfg.data_root = root
    if 'classes' in cfg:
        cfg.classes = moved('classes', cfg.classes)
    for section in DATA_KEYS:
        for node in dicts(cfg.get(section)):
            for key, value in node.items():
                node[key] = moved(key, value)


def set_pretrained(cfg: Config) -> None:
    """Make ``cfg.pretrained`` the checkpoint of the backbone; 'none' leaves its weights random.

    Raises:
        ValueError: when the model has no backbone.
    """
    model = next((node for node in dicts(cfg.model) if 'backbone' in node), None)
    if model is None:
        raise ValueError(f'pretrained={cfg.pretrained}: the model of {cfg.filename} has no backbone')
    options = model.backbone.get('init_cfg') or {}
    model.backbone.init_cfg = None if cfg.pretrained == 'none' else dict(
        options, type='Pretrained', checkpoint=cfg.pretrained, prefix='backbone.')


def set_num_classes(cfg: Config, old_number: int | None) -> None:
    """Put ``cfg.num_classes`` wherever the model and the preprocessor had ``old_number``."""
    for node in dicts([cfg.model, cfg.get('data_preprocessor')]):
        if 'num_classes' in node and old_number in (None, node['num_classes']):
            node['num_classes'] = cfg.num_classes


def set_size(cfg: Config, key: str, old: Sequence) -> None:
    """Put ``cfg[key]``, of images in pixels, wherever the data loaders and the model had ``old``.

    Sliding windows that overlapped by a third, as those of mmseg's configs, still do.

    Raises:
        ValueError: when it is nested otherwise than ``old``.
    """
    try:
        cfg[key] = _like(old, cfg[key])
    except TypeError as error:
        raise ValueError(f'{key}={cfg[key]}: write it like {old}') from error
    for section in (*LOADERS, 'model'):
        for node in dicts(cfg.get(section)):
            slides = 'stride' in node and node.get('crop_size') == old
            if slides and node.stride == tuple(side * 2 // 3 for side in old):
                node.stride = tuple(side * 2 // 3 for side in cfg[key])
            for name, value in node.items():
                if value == old:
                    node[name] = cfg[key]


def _like(old, new):
    """``new`` with the lists and tuples of ``old``: the command line makes other ones."""
    if not isinstance(old, (list, tuple)):
        return float(new) if isinstance(old, float) else int(new)
    return type(old)(_like(old[0], value) for value in new)


def set_classes(cfg: Config, old_number: int | None) -> None:
    """Give the names in ``cfg.classes`` to all data sets, and their number to the model.

    The label maps of ADE20K's layout then hold 0 for void and i for the i-th name. ADE20K's own data
    set takes only a choice of its 150 classes, so it makes way for mmseg's general one.

    Raises:
        FileNotFoundError, ValueError: see ``read_classes``.
        ValueError: when ``num_classes`` was changed to another number.
    """
    names = read_classes(cfg.classes)
    if cfg.get('num_classes') not in (old_number, len(names)):
        raise ValueError(f'num_classes={cfg.num_classes}, but classes={cfg.classes} has {len(names)}: '
                         'leave num_classes out')
    for loader in LOADERS:
        for dataset in leaf_datasets(cfg[loader].dataset) if cfg.get(loader) else ():
            dataset.metainfo = dict(dataset.get('metainfo') or {}, classes=names,
                                    palette=distinct_colours(len(names)))
            if dataset.type.split('.')[-1] == 'ADE20KDataset':
                dataset.type = dataset.type.replace('ADE20KDataset', 'BaseSegDataset')
                dataset.setdefault('reduce_zero_label', True)
    cfg.num_classes = len(names)
    set_num_classes(cfg, old_number)


def read_classes(classes: str | Sequence) -> list[str]:
    """The names of classes: a list itself, or those in a file.

    Args:
        classes (str | Sequence): names; or a text file with one on each line; or a JSON file with a
            list of them, or with COCO annotations, whose categories they are, in that order.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file holds something else, no name, or one twice.
    """
    names = classes
    if isinstance(classes, str):
        if not Path(classes).is_file():
            raise FileNotFoundError(f'classes={classes}: there is no such file; names themselves are '
                                    "given as 'classes=[cat,dog]'")
        text = Path(classes).read_text(encoding='utf-8')
        names = text.splitlines()
        if classes.endswith('.json'):
            names = json.loads(text)
            if isinstance(names, dict):
                names = [category['name'] for category in names.get('categories', ())]
    names = [str(name).strip() for name in names]
    names = names[:-1] if names and not names[-1] else names
    if not names or '' in names or len(set(names)) < len(names):
        raise ValueError(f'classes={classes} has the names {names}: give each class one of its own, a '
                         'line each in a .txt, or a list or COCO annotations in a .json')
    return names


def distinct_colours(number: int) -> list[list[int]]:
    """RGB colours in 0..255: those of neighbouring classes are far apart."""
    from matplotlib import colormaps  # late: most trainings draw nothing
    return colormaps['turbo']([i * 0.618034 % 1 for i in range(number)], bytes=True)[:, :3].tolist()
