"""What the values of a config may be: one table by the names of keys, and how some go together."""
import math
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from typing import Any

from mmengine.config import Config

from cae_mm.models.vit import ARCHITECTURES


def real(low: float, high: float = math.inf, ends: str = '[)') -> Callable[[Any], bool]:
    """A number between two, of which [ and ] take one in, ( and ) do not."""
    def allowed(value):
        return isinstance(value, (int, float)) and not isinstance(value, bool) and (
            low < value < high or value == low and ends[0] == '[' or value == high and ends[1] == ']')
    return allowed


def whole(least: int, *others: int) -> Callable[[Any], bool]:
    """A whole number from ``least`` on, or one of the others."""
    return lambda value: type(value) is int and (value >= least or value in others)


def each(allowed: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A value, or a list of such values."""
    def all_allowed(value):
        several = isinstance(value, (list, tuple)) and value
        return all(map(all_allowed, value)) if several else allowed(value)
    return all_allowed


def pair(allowed: Callable[[Any], bool], rising: bool = True) -> Callable[[Any], bool]:
    """Two values, if asked the second not below the first."""
    return lambda value: (isinstance(value, (list, tuple)) and len(value) == 2 and all(map(allowed, value))
                          and (value[0] <= value[1] or not rising))


def paths(value: Any) -> bool:
    """A path, or a list of such."""
    several = isinstance(value, (list, tuple)) and value
    return all(isinstance(path, str) for path in (value if several else [value]))


LEVELS = 'DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL'
POSITIVE, SHARE = real(0, ends='()'), real(0, 1, '[]')
# Names of keys, alone or behind the type, or the key, of what they are in; what their values may be, beside
# None; and that in words. The first line that has a key holds for it.
VALUES = [
    ('lr', POSITIVE, 'a number above 0, such as 1.5e-3'),
    ('weight_decay eps min_lr eta_min align_weight loss_weight layer_scale_init_value warmup_epochs',
     real(0), 'a number from 0 on'),
    ('max_norm clip_value power alpha *LR.gamma minutes', POSITIVE, 'a number above 0'),
    ('layer_decay_rate start_factor', real(0, 1, '(]'), 'a number above 0, at most 1'),
    ('betas', pair(real(0, 1), rising=False), 'two numbers from 0 to below 1, such as (0.9,0.999)'),
    ('drop*_rate *_drop_rate dropout_ratio label_smooth_val', real(0, 1), 'a number from 0 to below 1'),
    ('prob *_prob momentum *score_thr iou_threshold pos_iou_thr neg_iou_thr pos_fraction *_area_ratio',
     each(SHARE), 'a number from 0 to 1'),
    ('TwoViewCrop.scale crop_ratio_range', pair(real(0, 1, '(]')), 'two rising numbers above 0, at most 1'),
    ('ratio_range aspect_ratio_range TwoViewCrop.ratio aspect', pair(POSITIVE),
     'two rising numbers above 0'),
    ('mlp_ratio temperature *Pre?rocessor.std *Crop.scale *Resize.scale *Resize.scales ResizeEdge.scale '
     'crop_size train_scales crop_scales test_scale', each(POSITIVE), 'made of numbers above 0'),
    ('num_workers begin val_begin warmup_iters CAEDecoder.depth', whole(0), 'a whole number from 0 on'),
    ('img_size size target_size stride grid grid_size KNNHook.k topk num_classes num_heads num_layers '
     'depth embed_dims attn_dims in_dims in_channels hidden_dims code_dims num_codes num_outputs '
     'num_groups patch_size blocks_per_group stem_stride milestones',
     each(whole(1)), 'a whole number from 1 on, or made of such'),
    ('max_epochs max_iters val_interval accumulative_counts batch_size num_masked min_per_block '
     'max_per_block prefetch_factor base_batch_size window window_size cache_bytes num_policies *LR.end '
     'shots',
     whole(1), 'a whole number from 1 on'),
    ('interval max_keep_ckpts', whole(1, -1), 'a whole number from 1 on, or -1 for never or for all'),
    ('frozen_stages nms_pre max_per_img', whole(-1), 'a whole number from -1 on'),
    ('seed shots_seed', lambda value: type(value) is int and 0 <= value < 2**32,
     'a whole number from 0 to 2**32 - 1'),
    ('data_root shards subset cache_dir work_dir load_from tokenizer pretrained Pretrained*.checkpoint',
     paths, 'a path: write ./ before a name that is a number'),
    ('CAEViT.arch', lambda value: value in ARCHITECTURES, f'one of {", ".join(ARCHITECTURES)}'),
    ('log_level', lambda value: value in LEVELS, f'one of {", ".join(LEVELS)}'),
    ('resume amp by_epoch convert_to_iter_based shuffle drop_last',
     lambda value: isinstance(value, bool), 'True or False')]
ALTERNATIVES = 'compile_model', 'loss_scale', 'arch'  # a word, or something else


def check_kind(key: str, old: Any, new: Any) -> None:
    """Refuse a setting of another kind than the value whose place it takes.

    Raises:
        ValueError: naming the setting, and what it may be.
    """
    needed = None
    if old is None or new is None and key != 'model' or key.split('.')[-1] in ALTERNATIVES:
        return
    if isinstance(old, bool):
        needed = None if isinstance(new, bool) else 'True or False'
    elif isinstance(old, (int, float)):
        for value in new if isinstance(new, (list, tuple)) else ():
            check_kind(key, old, value)
        needed = f'a number such as {old}' if isinstance(new, (bool, str)) else None
    elif isinstance(old, str):
        needed = f'a word such as {old}' if isinstance(new, (bool, int, float)) else None
    elif isinstance(old, dict):
        scalar = isinstance(new, (bool, int, float, str, type(None)))
        needed = f'set by its parts, such as {key}.{next(iter(old), "")}=' if scalar else None
    elif key not in ('classes', 'data_root', 'shards'):
        needed = f'a list such as {old}'.replace(' ', '') if isinstance(new, (bool, str)) else None
        if isinstance(new, (list, tuple)) and old:
            for value in new:
                check_kind(key, old[0], value)
    if needed:
        raise ValueError(f'{key}={new}: it has to be {needed}')


def check_values(cfg: Config) -> None:
    """Refuse values that no training can have, before anything is built.

    Raises:
        ValueError: naming the key, its value, and what it may be.
    """
    for path, owner, key, value in sorted(_values(cfg._cfg_dict), key=lambda found: found[0].count('.')):
        if isinstance(value, float) and math.isnan(value):
            raise ValueError(f'{path}={value} is no number')
        for names, allowed, words in VALUES:
            if any(fnmatch(key, name) or fnmatch(f'{owner}.{key}', name) for name in names.split()):
                if value is not None and not isinstance(value, dict) and not allowed(value):
                    raise ValueError(f'{path}={value}: it has to be {words}')
                break
        if isinstance(value, dict):
            _check_heads(path, value)
    _check_schedule(cfg)


def _values(node: Any, path: str = '', owner: str = '') -> Iterator[tuple[str, str, str, Any]]:
    """Dotted key, type or key of what holds it, last key and value of all parts of a config."""
    if isinstance(node, dict):
        owner = str(node.get('type', owner)).split('.')[-1]
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        dotted = f'{path}.{key}'.lstrip('.')
        if isinstance(node, dict):
            yield dotted, owner, key, value
        if isinstance(value, (dict, list, tuple)):
            yield from _values(value, dotted, key if isinstance(node, dict) else owner)


def _check_heads(path: str, node: dict) -> None:
    dims, heads = 'attn_dims' if node.get('attn_dims') else 'embed_dims', node.get('num_heads')
    if heads and node.get(dims, 0) % heads:
        raise ValueError(f'{path}: {dims}={node[dims]} do not split into num_heads={heads}')


def _check_schedule(cfg: Config) -> None:
    """Rates and lengths of a training that go together."""
    lr = ((cfg.get('optim_wrapper') or {}).get('optimizer') or {}).get('lr', math.inf)
    schedules = cfg.get('param_scheduler') or []
    named = {'param_scheduler': schedules} if isinstance(schedules, dict) else {
        f'param_scheduler.{index}': schedule for index, schedule in enumerate(schedules)}
    for name, schedule in named.items():
        for key in ('min_lr', 'eta_min'):
            if (schedule.get(key) or 0) > lr:
                raise ValueError(f'{name}.{key}={schedule[key]} is above the rate of {lr}: set it too')
        unit = 'epochs' if schedule.get('by_epoch', True) else 'iters'
        key, length = f'warmup_{unit}', (cfg.get('train_cfg') or {}).get(f'max_{unit}', math.inf)
        warmup = schedule.get(key) or 0
        if schedule.get('type') == 'LinearLR':
            key, warmup = 'end', schedule.get('end', 1) - 1  # the first step with the whole rate
        if warmup > length:
            raise ValueError(f'max_{unit}={length} is below the warm-up of {warmup}: set {name}.{key} too')
