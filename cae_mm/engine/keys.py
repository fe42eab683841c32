"""Which keys a config may get: those that it has, and those that a class or a function will read."""
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import torch
from mmengine import registry as registries
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, LogProcessor, Runner, TestLoop, ValLoop
from mmengine.utils.dl_utils import set_multi_processing
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.data import DataLoader

from cae_mm.engine.checks import check_kind
from cae_mm.engine.sharding import ReplicatedModel, ShardedModel

# What reads the parts of a config that have no type, or keys that their type does not take: classes and
# functions, and names of keys.
READERS = {
    '': [Runner, 'compile', 'compile_model', 'find_unused_parameters', 'model_wrapper_cfg', 'runner_type',
         'sync_bn', 'activation_checkpointing', 'efficient_conv_bn_eval'],
    '*_dataloader': [DataLoader, 'num_batch_per_epoch', 'disable_subprocess_warning'],
    'train_cfg': [EpochBasedTrainLoop, IterBasedTrainLoop, 'by_epoch'],
    'val_cfg': [ValLoop],
    'test_cfg': [TestLoop],
    'optim_wrapper': [OptimWrapper, 'constructor', 'paramwise_cfg'],
    'optim_wrapper.clip_grad': [clip_grad_norm_, clip_grad_value_],
    'param_scheduler*': ['convert_to_iter_based'],
    'auto_scale_lr': ['enable', 'base_batch_size'],
    'randomness': [Runner.set_randomness],
    'env_cfg': ['cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'],
    'env_cfg.mp_cfg': [set_multi_processing],
    'default_hooks': ['runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint'],
    'log_processor': [LogProcessor],
    'model_wrapper_cfg': [ReplicatedModel, ShardedModel],
    'compile_model': [torch.compile],
    '*init_cfg': ['resize_rel_pos', 'trained_with'],  # of PretrainedEncoder, which takes Pretrained's place
}
PASSED_ON = {CheckpointHook: Runner.save_checkpoint}  # to what a class passes what it does not take itself
GIVEN = {'self', 'launcher', 'cfg'}  # arguments that no config gives
ALWAYS = {'type', '_scope_', '_delete_'}
PACKAGES = {'cae_mm', 'mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg', 'timm'}


def check_keys(cfg: Config, options: dict, short: Iterable[str] = ()) -> None:
    """Refuse a setting that would change nothing, or that would change what it cannot be.

    Args:
        cfg (Config): before the settings are merged into it.
        options (dict): dotted keys to values.
        short (Iterable[str]): further keys that have a meaning at the top.

    Raises:
        ValueError: naming the setting, and the nearest that there is.
    """
    for key, value in options.items():
        node, path = cfg._cfg_dict, ''
        for part in key.split('.'):
            text = f'{key}={value}'
            if isinstance(node, list):
                node = _element(node, path, part, text)
            elif node is None or isinstance(node, dict):
                node = _value(cfg, options, node or {}, path, part, text, set() if path else {*short})
            else:
                raise ValueError(f'{text}: {path} is {node!r}, which has no {part}: give {path} as a whole')
            path = f'{path}.{part}'.lstrip('.')
        check_kind(key, node, value)


def _element(node: list, path: str, part: str, text: str) -> Any:
    if not part.isdecimal() or int(part) >= len(node):
        raise ValueError(f'{text} changes nothing: {path} is a list of {len(node)}, whose elements are '
                         f'{path}.0 and so on')
    return node[int(part)]


def _value(cfg, options: dict, node: dict, path: str, part: str, text: str, short: set) -> Any:
    """What ``part`` names in a dictionary of the config; None if it is new there."""
    scope, here = cfg.get('default_scope'), f'{path}.{part}'.lstrip('.')
    kind = options.get(f'{path}.type', node.get('type'))
    names = known(path, kind, scope)
    if not path and part in node and part not in {*names, *short}:
        places = [name for name, value in nodes(node) if value == node[part] and name != part]
        raise ValueError(f'{text} changes nothing: the {part} of {cfg.filename} is already in its place'
                         + (f': set {" or ".join(places[:3])}' if places else ''))
    if part == 'type' and kind != node.get('type'):
        check_type(kind, node.get('type'), scope, text)
    # Where that cannot be told, the name of a key beside it with a slip of the finger is none.
    reads = part in short or (part in names if names is not None else is_read(part)
                              and not get_close_matches(part.lower(), {*node, *ALWAYS}, cutoff=0.85))
    # In a list by names, as that of the hooks, a part of one's own has a name of one's own, and a type.
    own = path and not kind and f'{here}.type' in options
    if not (part in node or part in ALWAYS or reads or own):
        near = nearest(cfg, path, part, {*node, *(names or ()), *short})
        way_out = suggestion(near) or f'; there are {", ".join(sorted(short or names or node))}'
        raise ValueError(f'{text} changes nothing: {cfg.filename} has no {here}{way_out}')
    return node.get(part, (names or {}).get(part))


def known(path: str, kind: Any, scope: str | None) -> dict[str, Any] | None:
    """The keys that are read of a part of a config with a type, and what they are without a value.

    None where the keys cannot be told.
    """
    readers = [reader for pattern, found in READERS.items() if fnmatch(path, pattern) for reader in found]
    names = [reader for reader in readers if isinstance(reader, str)]
    classes = registered(kind, scope) or [reader for reader in readers if reader not in names]
    found = [*map(arguments, classes), dict.fromkeys(names)]
    if None in found or not (classes or readers):
        return None
    return {name: value for names in found for name, value in names.items() if name not in GIVEN}


def registered(kind: Any, scope: str | None) -> dict[Callable, Registry | None]:
    """What a ``type`` stands for in any registry, and in which."""
    if not isinstance(kind, str):
        return {kind: None} if callable(kind) else {}
    place, _, name = kind.rpartition('.')
    found = {}
    with MODELS.switch_scope_and_registry(place or scope):  # which imports the registries of this scope
        library = sys.modules.get(f'{place or scope}.registry', registries)  # has some of its own
        for registry in [*vars(registries).values(), *vars(library).values()]:
            if not isinstance(registry, Registry):
                continue
            own = registry.children.get(place or scope, registry)
            while own is not None:
                own.import_from_location()
                if name in own.module_dict and place in ('', own.scope):
                    found[own.module_dict[name]] = own
                own = own.parent
    return found


def check_type(kind: Any, old: Any, scope: str | None, text: str) -> None:
    """Refuse the name of a class that is none, where its former name was one.

    Raises:
        ValueError: naming the nearest.
    """
    former, near = registered(old, scope), []
    if former and not registered(kind, scope):
        for registry in filter(None, former.values()):
            place = '' if registry.scope in (scope, registry.root.scope) else f'{registry.scope}.'
            name = str(kind).split('.')[-1]
            near += [place + name for name in get_close_matches(name, registry.module_dict)]
        if near or '.' not in str(kind):
            raise ValueError(f'{text}: there is no {kind}{suggestion(near)}')


@cache
def arguments(reader: Callable) -> dict[str, Any] | None:
    """The arguments of a class or function and their defaults; None where it passes any on to others.

    Those that it passes on to its bases are among them.
    """
    names, passes_on = {}, False
    for part in inspect.getmro(reader) if inspect.isclass(reader) else [reader]:
        init = vars(part).get('__init__') if inspect.isclass(reader) else part
        if init is None:
            continue
        if part in (object, nn.Module):
            return None if passes_on and part is object else names
        try:
            parameters = inspect.signature(init).parameters.values()
        except (TypeError, ValueError):
            return None
        names = {arg.name: None if arg.default is arg.empty else arg.default for arg in parameters
                 if arg.kind in (arg.POSITIONAL_OR_KEYWORD, arg.KEYWORD_ONLY)} | names
        if part in PASSED_ON:
            return names | arguments(PASSED_ON[part])
        passes_on = any(arg.kind is arg.VAR_KEYWORD for arg in parameters)
        if not passes_on:
            return names
    return None


@cache
def is_read(name: str) -> bool:
    """Whether any module that is loaded, of those that read configs, has this word."""
    word = re.compile(rf'\b{re.escape(name)}\b'.encode())
    files = [getattr(module, '__file__', None) or '' for name, module in [*sys.modules.items()]
             if name.partition('.')[0] in PACKAGES]
    return any(word.search(Path(file).read_bytes()) for file in files if file.endswith('.py'))


def dicts(node) -> Iterator[dict]:
    """All dictionaries in a part of a config, the outer ones first."""
    if isinstance(node, dict):
        yield node
        node = node.values()
    elif not isinstance(node, (list, tuple)):
        return
    for child in node:
        yield from dicts(child)


def nodes(node: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """All parts of a config below one, by their dotted keys."""
    parts = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in parts:
        key = f'{path}.{key}'.lstrip('.')
        yield key, value
        yield from nodes(value, key)


def nearest(cfg: Config, path: str, part: str, here: Iterable[str]) -> list[str]:
    """Dotted keys that may be meant: like this one in its place, or of the same or like name elsewhere."""
    near = get_close_matches(part, here, cutoff=0.75)
    if near:
        return [f'{path}.{name}'.lstrip('.') for name in near]
    elsewhere = {}
    for key, _ in nodes(cfg._cfg_dict):
        if key.partition('.')[0] in known('', None, None):
            elsewhere.setdefault(key.split('.')[-1], []).append(key)
    near = [] if part.isdecimal() else get_close_matches(part, elsewhere, cutoff=0.75)
    near = near or get_close_matches(part, here, cutoff=0.5)
    return [key for name in near for key in elsewhere.get(name, [f'{path}.{name}'.lstrip('.')])]


def suggestion(names: list[str]) -> str:
    """The end of a message with the first of the names that may be meant."""
    return f', do you mean {" or ".join(dict.fromkeys(names[:3]))}?' if names else ''
