"""The short settings of a config, written wherever its data and its model have them."""
import copy
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict

from cae_mm.datasets.annotations import leaf_datasets
from cae_mm.disk import read_regular
from cae_mm.engine.backbones import set_backbone
from cae_mm.engine.checks import check_values
from cae_mm.engine.keys import check_keys, dicts

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
DATA_KEYS = LOADERS + ('val_evaluator', 'test_evaluator', 'custom_hooks', 'default_hooks')


def apply_options(cfg: Config, options: dict) -> None:
    """Merge options into a config, and put those that are short settings where they belong.

    These are ``data_root``, in place of the config's wherever data loaders, evaluators and hooks use
    it, or several folders for training; ``data_prefix``, the folder in it with the images to train on;
    ``shards``, packed images to train on in place of a folder, with ``cache_dir`` and ``cache_bytes``;
    ``window``, how many shards are shuffled together; ``shots``, images of each class to train on, chosen
    by ``shots_seed``, and ``subset``, the file that names them; ``tokenizer``, the checkpoint of
    ``model.target_generator``; ``pretrained``, that of the backbone ('none': random weights);
    ``backbone``, see ``set_backbone``; ``num_classes``, in all of the model; ``classes``, see
    ``set_classes``; sizes of images, wherever their old values stand; and those of ``PLACES``.
    ``cfg.changes`` then says in how many places.

    Args:
        cfg (Config): changed in place.
        options (dict): as given on the command line, dotted keys to values.

    Raises:
        FileNotFoundError: when the file of ``classes`` does not exist.
        ValueError: when a setting changes nothing, or is out of range; see ``check_keys``, ``check_values``
            and the functions below.
    """
    check_keys(cfg, options, SHORT)
    old = {key: copy.deepcopy(cfg.get(key)) for key in SHORT}
    cfg.merge_from_dict(options)
    check_values(Config({key: cfg[key] for key in SHORT if key in options}))  # before they are taken apart
    cfg.changes = []
    for key, put in SHORT.items():
        value = cfg.get(key)
        # What the config itself says of these two is written nowhere else.
        if (key not in options if key in PLACES else value is None or (
                value == old[key] and key not in ('tokenizer', 'classes'))):
            continue
        places = put(cfg, key, old)
        if not places:
            raise ValueError(
                f'{key}={value} changes nothing: {cfg.filename} ' + (
                    f'uses its {key}={old[key]} nowhere' if old[key] is not None else f'has no {key}')
                + ''.join(f', but {name}' for name in cfg.get('train_cfg') or ()
                          if name.startswith('max_') and key.startswith('max_')))
        if cfg[key] != old[key]:
            number, where = sum(places.values()), ', '.join(places)
            cfg.changes.append(f'{key}={cfg[key]}: {number} place{"s" * (number > 1)} ({where})')
    check_values(cfg)


def replace(cfg: Config, sections: Iterable[str], new: Callable) -> Counter:
    """Put ``new(key, value)`` in the place of each value that differs; count these by section."""
    places = Counter()
    for section in sections:
        for node in dicts(cfg.get(section)):
            for key, value in node.items():
                other = new(key, value)
                if other != value:
                    node[key] = other
                    places[section] += 1
    return places


def set_data_root(cfg: Config, key: str, old: dict) -> Counter:
    """Put ``cfg.data_root`` wherever data loaders, evaluators, hooks and ``classes`` use the old one.

    Several folders are read one after another, as one data set to train on.

    Raises:
        ValueError: when of several folders something else than training would need one.
    """
    roots = [cfg.data_root] if isinstance(cfg.data_root, str) else list(cfg.data_root)
    before, places = (old['data_root'] or '').rstrip('/'), Counter()
    if before and [root.rstrip('/') for root in roots] == [before]:
        cfg.data_root = old['data_root']  # the config's own: everything is in its place
        return Counter(data_root=1)
    if len(roots) > 1:
        for leaf in list(leaf_datasets(cfg.train_dataloader.dataset)):
            if before in ('', leaf.get('data_root', '').rstrip('/')):
                parts = [ConfigDict(copy.deepcopy(leaf), data_root=root) for root in roots]
                leaf.clear()
                leaf.update(type='ConcatDataset', datasets=parts)
                places['train_dataloader'] += 1
    else:
        [cfg.data_root] = roots

    def moved(key, value):
        if not isinstance(value, str) or value in roots:
            return value
        if not (f'{value}/'.startswith(f'{before}/') if before else key == 'data_root'):
            return value
        if len(roots) > 1:
            raise ValueError(f'data_root={roots}: {key}={value} needs a folder of its own, which '
                             '--cfg-options can give to the setting by its full name')
        return str(Path(roots[0], value[len(before) + 1:])) if before else roots[0]

    if 'classes' in cfg:
        cfg.classes = moved('classes', cfg.classes)
    return places + replace(cfg, DATA_KEYS, moved)


def set_data_prefix(cfg: Config, key: str, old: dict) -> Counter:
    """Read the images to train on from the folder ``cfg.data_prefix``; '' is ``data_root`` itself."""
    return replace(cfg, ['train_dataloader'], lambda name, value: (
        cfg.data_prefix if name == key and value == old[key] else value))


def set_shards(cfg: Config, key: str, old: dict) -> Counter:
    """Train on the images of the shards in ``cfg.shards``, one or several folders or URLs."""
    roots, places = [cfg.shards] if isinstance(cfg.shards, str) else cfg.shards, Counter()
    for leaf in list(leaf_datasets(cfg.train_dataloader.dataset)):
        scope, _, name = leaf.type.rpartition('.')
        if name == 'ImageFolder':
            kept = {key: leaf[key] for key in ('pipeline', 'with_label') if key in leaf}
            kept['type'] = f'{scope}.ShardedImages'.lstrip('.')
            parts = [ConfigDict(copy.deepcopy(kept), data_root=root) for root in roots]
            leaf.clear()
            leaf.update(dict(type='ConcatDataset', datasets=parts) if len(parts) > 1 else parts[0])
            places['train_dataloader'] += 1
    return places


def set_images(cfg: Config, key: str, old: dict) -> Counter:
    """Put ``cfg[key]`` where the images to train on are: how they are kept, or which are taken."""
    kind, places = 'ShardedImages' if key.startswith('cache') else 'ImageFolder', Counter()
    for leaf in leaf_datasets(cfg.train_dataloader.dataset):
        if leaf.type.split('.')[-1] == kind:
            leaf[key] = cfg[key]
            places['train_dataloader'] += 1
    return places


def set_window(cfg: Config, key: str, old: dict) -> Counter:
    """Shuffle within ``cfg.window`` shards: see ``EpochSampler``."""
    cfg.train_dataloader.sampler.window = cfg.window
    return Counter(train_dataloader=1)


def set_tokenizer(cfg: Config, key: str, old: dict) -> Counter:
    """Make ``cfg.tokenizer`` the checkpoint of the target generator."""
    if 'target_generator' not in cfg.model:
        return Counter()
    cfg.model.target_generator.init_cfg = dict(type='PretrainedTokenizer', checkpoint=cfg.tokenizer)
    return Counter(model=1)


def set_pretrained(cfg: Config, key: str, old: dict) -> Counter:
    """Make ``cfg.pretrained`` the checkpoint of the backbone; 'none' leaves its weights random."""
    model = next((node for node in dicts(cfg.model) if 'backbone' in node), None)
    if model is None:
        return Counter()
    options = model.backbone.get('init_cfg') or {}
    model.backbone.init_cfg = None if cfg.pretrained == 'none' else dict(
        options, type='Pretrained', checkpoint=cfg.pretrained, prefix='backbone.')
    return Counter(model=1)


def set_num_classes(cfg: Config, key: str, old: dict) -> Counter:
    """Put ``cfg.num_classes`` wherever the model and the preprocessor have the old number."""
    number = old['num_classes']
    return replace(cfg, ['model', 'data_preprocessor'], lambda name, value: (
        cfg.num_classes if name == 'num_classes' and number in (None, value) else value))


def set_size(cfg: Config, key: str, old: dict) -> Counter:
    """Put ``cfg[key]``, of images in pixels, wherever the data loaders and the model have the old one.

    Sliding windows that overlapped by a third, as those of mmseg's configs, still do.

    Raises:
        ValueError: when it is nested otherwise than the old one.
    """
    before = old[key]
    if before is None:
        return Counter()
    try:
        cfg[key] = _like(before, cfg[key])
    except TypeError as error:
        raise ValueError(f'{key}={cfg[key]}: write it like {before}') from error
    for node in dicts(cfg.model):
        slides = 'stride' in node and node.get('crop_size') == before
        if slides and node.stride == tuple(side * 2 // 3 for side in before):
            node.stride = tuple(side * 2 // 3 for side in cfg[key])
    return replace(cfg, (*LOADERS, 'model'), lambda name, value: cfg[key] if value == before else value)


def _like(old, new):
    """``new`` with the lists and tuples of ``old``: the command line makes other ones."""
    if not isinstance(old, (list, tuple)):
        return float(new) if isinstance(old, float) else int(new)
    return type(old)(_like(old[0], value) for value in new)


def set_classes(cfg: Config, key: str, old: dict) -> Counter:
    """Give the names in ``cfg.classes`` to all data sets, and their number to the model.

    The label maps of ADE20K's layout then hold 0 for void and i for the i-th name. ADE20K's own data
    set takes only a choice of its 150 classes, so it makes way for mmseg's general one.

    Raises:
        FileNotFoundError, ValueError: see ``read_classes``.
        ValueError: when ``num_classes`` was changed to another number.
    """
    names, places = read_classes(cfg.classes), Counter()
    if cfg.get('num_classes') not in (old['num_classes'], len(names)):
        raise ValueError(f'num_classes={cfg.num_classes}, but classes={cfg.classes} has {len(names)}: '
                         'leave num_classes out')
    for loader in LOADERS:
        for dataset in leaf_datasets(cfg[loader].dataset) if cfg.get(loader) else ():
            dataset.metainfo = dict(dataset.get('metainfo') or {}, classes=names,
                                    palette=distinct_colours(len(names)))
            if dataset.type.split('.')[-1] == 'ADE20KDataset':
                dataset.type = dataset.type.replace('ADE20KDataset', 'BaseSegDataset')
                dataset.setdefault('reduce_zero_label', True)
            places[loader] += 1
    cfg.num_classes = len(names)
    return places + set_num_classes(cfg, key, old)


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
        try:
            text = read_regular(classes).decode()
            names = json.loads(text) if classes.endswith('.json') else text.splitlines()
            names = [category['name'] for category in names.get('categories', ())] if isinstance(
                names, dict) else [*names]
        except (ValueError, RecursionError, TypeError, KeyError) as error:
            raise ValueError(f'classes={classes} is no such file in UTF-8 ({error!r}): give each class a '
                             'line of a .txt, or a list or COCO annotations in a .json') from error
    names = [str(name).strip() for name in names]
    names = names[:-1] if names and not names[-1] else names
    if not names or '' in names or len(set(names)) < len(names):
        raise ValueError(f'classes={classes} has the names {names}: give each class one of its own, a '
                         'line each in a .txt, or a list or COCO annotations in a .json')
    return names


def distinct_colours(number: int) -> list[tuple[int, ...]]:
    """RGB colours in 0..255: those of neighbouring classes are far apart."""
    from matplotlib import colormaps  # late: most trainings draw nothing
    colours = colormaps['turbo']([i * 0.618034 % 1 for i in range(number)], bytes=True)[:, :3]
    return [*map(tuple, colours.tolist())]  # mmdet draws with no lists


def set_places(cfg: Config, key: str, old: dict) -> Counter:
    """Put ``cfg[key]`` in those places of ``PLACES`` that the config has."""
    places = Counter()
    for place in PLACES[key]:
        section, _, name = place.rpartition('.')
        node = cfg
        for part in section.split('.'):
            node = node.get(part) or {}
        if name in node:
            node[name] = cfg[key]
            places[section.split('.')[0]] += 1
    return places


# Where these short settings of the command line belong.
PLACES = dict(
    lr=['optim_wrapper.optimizer.lr'], batch_size=['train_dataloader.batch_size'],
    max_epochs=['train_cfg.max_epochs'], max_iters=['train_cfg.max_iters'],
    num_workers=[f'{loader}.num_workers' for loader in LOADERS])
# In the order in which they are put in place.
SHORT = dict(
    dict.fromkeys(PLACES, set_places), backbone=set_backbone,
    data_root=set_data_root, data_prefix=set_data_prefix, shards=set_shards, window=set_window,
    **dict.fromkeys(('cache_dir', 'cache_bytes', 'shots', 'shots_seed', 'subset'), set_images),
    tokenizer=set_tokenizer, pretrained=set_pretrained, num_classes=set_num_classes, classes=set_classes,
    **dict.fromkeys(('train_scales', 'crop_scales', 'crop_size', 'test_scale'), set_size))
