"""Encoders by name, and our configs by name in mmpretrain's hub."""
from difflib import get_close_matches
from fnmatch import filter as match
from pathlib import Path

from mmpretrain.apis.model import ModelHub

from cae_mm.checkpoint.loader import arguments_of, load_backbone
from cae_mm.checkpoint.timm_weights import load_timm
from cae_mm.configs import ROOT
from cae_mm.engine.backbones import TIMM
from cae_mm.models.timm_vit import TimmViT
from cae_mm.models.vit import ENCODERS, CAEViT


def list_models(pattern: str = '*') -> list[str]:
    """Names of the encoders that ``get_model`` builds, of those that match a shell pattern."""
    return sorted(match(ENCODERS, pattern))


def get_model(name: str | None = None, pretrained: str | Path | None = None,
              trained_with: dict | None = None, **kwargs) -> CAEViT | TimmViT:
    """Build an encoder in evaluation mode.

    Args:
        name (str, optional): one of ``list_models()``, or 'timm:' and one of ``timm.list_models()``;
            without one it is the ``CAEViT`` that is in ``pretrained``.
        pretrained (str | Path, optional): checkpoint of any known origin with the whole encoder, a folder
            that tools/export.py made or 'hf-hub:OWNER/MODEL', see ``fetch``, ``load_backbone`` and
            ``load_timm``; without one the weights are random.
        trained_with (dict, optional): what the checkpoint does not say, see ``load_backbone``.
        **kwargs: arguments of ``CAEViT``: out_type, out_indices, img_size, use_rel_pos_bias, ..., whose
            ``arch`` takes the place of the name's; or of ``TimmViT``.

    Returns:
        CAEViT | TimmViT: gives a tuple with an output for each of its ``out_indices``.

    Raises:
        ValueError: for an unknown name; for ``pretrained=True``, since no weights are hosted.
        FileNotFoundError, ValueError, RuntimeError: see ``load_backbone``.
    """
    of_timm = name is not None and name.startswith(TIMM)
    if name is None and pretrained in (None, True):
        raise ValueError('name an encoder, or give a checkpoint as pretrained=')
    if not of_timm and name is not None and name not in ENCODERS:
        near = get_close_matches(name, ENCODERS, cutoff=0.5)
        raise ValueError(
            f'there is no encoder {name!r}: ' + (f'do you mean {" or ".join(near)}? ' if near else '')
            + f'There are {", ".join(ENCODERS)}, and timm:NAME for those of timm. A model of a config, '
            "with its head, comes from mmpretrain.get_model, such as 'finetune_cae_vitb_100e'")
    if pretrained is True:
        raise ValueError('pretrained=True: this project hosts no weights. Give the path of a '
                         "checkpoint: one of your own, one of the authors' "
                         '(https://github.com/Atten4Vis/CAE), or one of mmpretrain or timm; '
                         'tools/convert.py writes any of them as one of ours')
    own = (dict(arch=ENCODERS[name]) if name in ENCODERS else {} if of_timm
           else arguments_of(pretrained, (trained_with or {}).get('num_heads')))
    backbone = TimmViT(name.removeprefix(TIMM), **kwargs) if of_timm else CAEViT(**own | kwargs)
    if pretrained:
        load = load_timm if of_timm else load_backbone
        load(backbone, pretrained, trained_with=trained_with)
    return backbone.eval()


def register_configs() -> None:
    """Add our configs to mmpretrain's hub, where its get_model, list_models and inferencers look.

    Not those of detectors and segmentors: the hub builds mmpretrain's models only. It loads
    ``pretrained`` by mmengine, which only warns of keys that do not fit: give it a
    checkpoint of the same model, trained here or written by tools/convert.py. A package that was
    copied without its configs has encoders by name alone.
    """
    # The hub refuses a name that it has; this package may be imported anew.
    if (ROOT / 'configs').is_dir() and not ModelHub.has('cae_vitb_300e'):
        for task in ('pretrain', 'cls'):
            ModelHub.register_model_index(ROOT / 'configs' / task / 'metafile.yml', config_prefix=ROOT)
