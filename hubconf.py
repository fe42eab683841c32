"""The encoders for torch.hub: torch.hub.load(REPOSITORY, 'cae_vitb', pretrained=CHECKPOINT)."""
from functools import partial, update_wrapper

from cae_mm.hub import ENCODERS, get_model  # noqa: F401  one entry point more, for any checkpoint

dependencies = ['torch', 'timm', 'mmengine', 'mmcv', 'mmpretrain']
globals().update({name: update_wrapper(partial(get_model, name), get_model) for name in ENCODERS})
