"""Another backbone in the place of a config's, and all that depends on it."""
from collections import Counter
from math import gcd

import torch
from mmengine.config import Config, ConfigDict
from torch import nn

from cae_mm.engine.keys import dicts
from cae_mm.models.timm_vit import TimmViT
from cae_mm.models.vit import ENCODERS, parse_arch

TIMM = 'timm:'
WIDTHS = ('in_channels', 'input_features')


def set_backbone(cfg: Config, key: str, old: dict) -> Counter:
    """Put the encoder ``cfg.backbone`` in the place of the model's ``CAEViT``, and fit what depends on it.

    The protocol stays: images, taps at the same parts of the depth, all blocks frozen where all were, and
    features, where the mean of the patch tokens stands in for a class token that there is not. Patches
    of maps keep their size, in pixels; those of a classifier are the new model's, if they divide the
    image. Necks and heads get its width, an attentive probe heads of 64 channels, and pixels its
    normalisation.

    Args:
        cfg (Config): ``backbone`` is 'timm:' with a name of ``timm.list_models()``, or one of
            ``cae_mm.list_models()``.

    Raises:
        ValueError: for an unknown name, or a config whose backbone is no ``CAEViT``.
    """
    holder = next((node for node in dicts(cfg.model) if 'backbone' in node), None)
    kind = holder.backbone.type if holder else 'no backbone'
    if kind.split('.')[-1] != 'CAEViT' or cfg.model.type.endswith('ContextAutoencoder'):
        raise ValueError(f'backbone={cfg.backbone}: {cfg.filename} has {kind} in a {cfg.model.type}, whose '
                         'place no other takes: name a config of classification, detection or segmentation')
    was = holder.backbone
    width, depth, _ = parse_arch(was.arch)
    if cfg.backbone in ENCODERS:
        was.arch = ENCODERS[cfg.backbone]
        new_width, new_depth, heads = parse_arch(was.arch)
        taps(was, depth, new_depth)
    else:
        holder.backbone, model = timm_backbone(cfg.backbone, was, depth)
        new_width, heads = model.embed_dims, model.embed_dims // gcd(model.embed_dims, 64)
        set_pixels(cfg, model)
    for name, node in holder.items():
        if name != 'backbone':
            for part in dicts(node):
                fit_width(part, width, new_width, heads)
    return Counter(model=1)


def timm_backbone(spec: str, was: ConfigDict, depth: int) -> tuple[ConfigDict, nn.Module]:
    """The settings of a ``TimmViT`` in the place of a ``CAEViT``, and the model without its numbers.

    Raises:
        ValueError: for an unknown name.
    """
    if not spec.startswith(TIMM):
        raise ValueError(f'backbone={spec}: write timm:NAME with a name of timm.list_models(), or one of '
                         f'{", ".join(ENCODERS)}')
    name = spec.removeprefix(TIMM)
    with torch.device('meta'):
        model = TimmViT(name, out_type='raw')
    size, patch = was.get('img_size', 224), was.get('patch_size', 16)
    sides = [size] if isinstance(size, int) else size
    kept = ('out_type', 'out_indices', 'final_norm', 'drop_path_rate', 'frozen_stages', 'with_cp')
    options = {option: was[option] for option in kept if option in was}
    new = ConfigDict(type=was.type.replace('CAEViT', 'TimmViT'), name=name, img_size=size, **options)
    if was.get('out_type') == 'featmap' or any(side % model.patch_size for side in sides):
        new.patch_size = patch
    if was.get('out_type', 'cls_token') == 'cls_token' and not model.has_cls_token:
        new.out_type = 'avg_featmap'
    if was.get('init_cfg'):
        new.init_cfg = {option: was.init_cfg[option] for option in ('type', 'checkpoint', 'prefix')
                        if option in was.init_cfg}
    taps(new, depth, model.num_layers)
    return new, model


def taps(backbone: ConfigDict, old: int, new: int) -> None:
    """Tap and freeze at the same parts of another depth, in place."""
    indices = backbone.get('out_indices', -1)
    if not isinstance(indices, int):
        backbone.out_indices = tuple(i if i < 0 else round((i + 1) * new / old) - 1 for i in indices)
    if backbone.get('frozen_stages', -1) > 0:
        backbone.frozen_stages = round(backbone.frozen_stages * new / old)


def fit_width(node: dict, old: int, new: int, heads: int) -> None:
    """Put the width of an encoder where that of another is read, in place."""
    for key in WIDTHS:
        value = node.get(key)
        if value == old:
            node[key] = new
        elif isinstance(value, (list, tuple)) and set(value) == {old}:
            node[key] = [new] * len(value)
    if node.get('num_convs') == 0 and node.get('channels') == old:  # a linear layer on the map
        node.channels = new
    if node.get('type', '').endswith('AttentiveProbeHead'):
        node.num_heads = heads


def set_pixels(cfg: Config, model: nn.Module) -> None:
    """Normalise pixels as a model of timm takes them, in place."""
    settings = cfg.model.get('data_preprocessor') or cfg.data_preprocessor
    flips = settings.get('to_rgb', settings.get('bgr_to_rgb', False))
    for key, numbers in (('mean', model.mean), ('std', model.std)):
        numbers = [round(255 * x, 4) for x in numbers]
        settings[key] = numbers if flips or settings.type.endswith('CAEDataPreprocessor') else numbers[::-1]
