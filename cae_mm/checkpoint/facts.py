"""What the arrays of an encoder do not tell: its heads, and the images it was trained with."""
from mmpretrain.models.backbones import BEiTViT, VisionTransformer
from torch import Tensor, nn

from cae_mm.checkpoint.layouts import HEADS_BY_SIZE, OFFICIAL_HEADS
from cae_mm.checkpoint.tables import tables_of
from cae_mm.models import CAEDataPreprocessor, CAEViT, TimmViT

FACTS = ('num_heads', 'patch_size', 'img_size', 'mean', 'std', 'channel_order')
KEY = 'cae_mm'  # of ``checkpoint['meta']``, and of a safetensors header


def facts_of(model: nn.Module) -> dict:
    """What is true of a model, or of an encoder alone, which knows no pixels; {} of a foreign one.

    Returns:
        dict: num_heads, or the name in timm, patch_size, img_size (height and width), and ``pixels_of`` the
            model's ``data_preprocessor``.
    """
    backbone = getattr(model, 'backbone', model)
    if isinstance(backbone, (BEiTViT, VisionTransformer)):
        own = dict(num_heads=backbone.arch_settings['num_heads'])
        patch, grid = backbone.patch_embed.projection.kernel_size[0], backbone.patch_resolution
    elif isinstance(backbone, (CAEViT, TimmViT)):
        own = (dict(timm=backbone.name) if isinstance(backbone, TimmViT)
               else dict(num_heads=backbone.blocks[0].attn.num_heads))
        patch, grid = backbone.patch_size, backbone.grid_size
    else:
        return {}
    return dict(**own, patch_size=patch, img_size=[side * patch for side in grid],
                **pixels_of(getattr(model, 'data_preprocessor', None)))


def pixels_of(preprocessor: nn.Module | None) -> dict:
    """mean, std and channel_order of a preprocessor that normalises, as the encoder sees them."""
    if not hasattr(preprocessor, 'mean'):
        return {}
    # OpenMMLab reads images as BGR; its preprocessors have one of these switches.
    flips = getattr(preprocessor, 'to_rgb', getattr(preprocessor, '_channel_conversion', False))
    order = 'RGB' if flips or isinstance(preprocessor, CAEDataPreprocessor) else 'BGR'
    mean, std = ([float(f'{x:.6g}') for x in numbers.flatten()]
                 for numbers in (preprocessor.mean, preprocessor.std))
    return dict(mean=mean, std=std, channel_order=order)


def check_pixels(backbone: nn.Module, preprocessor: nn.Module) -> None:
    """A RuntimeError for an encoder with other pixels than its file said that it was trained with."""
    known, given = getattr(backbone, 'trained_with', {}), pixels_of(preprocessor)
    if problems := contradictions({name: known.get(name) for name in given}, given):
        raise RuntimeError(f'the encoder was trained with other pixels: {problems}. Change '
                           'data_preprocessor, or, to go on all the same, say trained_with=dict(mean=None, '
                           'std=None, channel_order=None) in init_cfg')


def facts_in(meta: dict | None) -> dict:
    """The facts in the meta of a checkpoint of ours, if it has any; a ValueError for what can be none."""
    facts = meta.get(KEY, {}) if isinstance(meta, dict) else {}
    if not isinstance(facts, dict):
        raise ValueError(f'the meta states {KEY}={facts!r}, which no encoder has')
    for name in facts.keys() & set(FACTS):
        numbers = facts[name] if isinstance(facts[name], (list, tuple)) else [facts[name]]
        whole = name in ('num_heads', 'patch_size', 'img_size')
        kinds = str if name == 'channel_order' else int if whole else (int, float)
        if name == 'img_size' and len(numbers) != 2 or not all(
                isinstance(n, kinds) and not (whole and n < 1) for n in numbers):
            raise ValueError(f'the meta states {name}={facts[name]!r}, which no encoder has')
    return dict(facts)


def contradictions(file: dict, model: dict) -> str:
    """Name all facts that differ, '' when none do; what is unknown, or None, does not."""
    return '; '.join(f'{name}={value} in the file, {model[name]} in the model'
                     for name, value in file.items() if value not in (None, model.get(name, value)))


def heads_of(ours: dict[str, Tensor], layout: str) -> int | None:
    """Attention heads of an encoder by its relative position tables, else the usual ones; None: unknown.

    ``layout`` is whose names it came with. 'official' is BEiT's too, whose files have tables: one without
    is the authors'.
    """
    for table in tables_of(ours).values():
        return table.shape[1]
    width = ours['backbone.cls_token'].shape[-1]
    depth = sum(name.endswith('.norm1.weight') for name in ours)
    usual = HEADS_BY_SIZE | (OFFICIAL_HEADS if layout == 'official' else {})
    unusual = layout == 'cae_mm' or width % 64 or width < 192  # ours, and toys, have any number
    return None if unusual else usual.get((width, depth), usual.get(width, width // 64))
