"""What the arrays of an encoder do not tell: its heads, and the images it was trained with."""
from torch import nn

from cae_mm.models import CAEDataPreprocessor, CAEViT

FACTS = ('num_heads', 'patch_size', 'img_size', 'mean', 'std', 'channel_order')
KEY = 'cae_mm'  # of ``checkpoint['meta']``, and of a safetensors header


def facts_of(model: nn.Module) -> dict:
    """Heads, patch, image size, normalisation and channel order of a model with an encoder of ours.

    Args:
        model (nn.Module): has a ``CAEViT`` as its ``backbone``, or is one, which leaves the pixels
            out; of others nothing is said.

    Returns:
        dict: num_heads, patch_size, img_size (height and width), and where the model's
        ``data_preprocessor`` normalises, mean, std and channel_order, as the encoder sees them.
    """
    backbone = getattr(model, 'backbone', model)
    if not isinstance(backbone, CAEViT):
        return {}
    patch, pixels = backbone.patch_size, getattr(model, 'data_preprocessor', None)
    facts = dict(num_heads=backbone.blocks[0].attn.num_heads, patch_size=patch,
                 img_size=[side * patch for side in backbone.grid_size])
    if hasattr(pixels, 'mean'):
        facts |= {name: [float(f'{x:.6g}') for x in getattr(pixels, name).flatten()]
                  for name in ('mean', 'std')}
        # OpenMMLab reads images as BGR; its preprocessors have one of these switches.
        flips = getattr(pixels, 'to_rgb', getattr(pixels, '_channel_conversion', False))
        facts['channel_order'] = 'RGB' if flips or isinstance(pixels, CAEDataPreprocessor) else 'BGR'
    return facts


def facts_in(checkpoint: dict) -> dict:
    """The facts that a checkpoint of ours carries; none in older ones and in those of others."""
    meta = checkpoint.get('meta')
    return dict(meta.get(KEY, {})) if isinstance(meta, dict) else {}


def contradictions(file: dict, model: dict) -> str:
    """Name all facts that differ, '' when none do; what is unknown, or None, does not."""
    return '; '.join(f'{name}={value} in the file, {model[name]} in the model'
                     for name, value in file.items() if value not in (None, model.get(name, value)))
