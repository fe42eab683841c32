"""CAE, the Context Autoencoder, as an OpenMMLab plugin: importing it fills mmpretrain's registries."""
import cae_mm.dependencies  # noqa: F401, I001  before mmpretrain
import cae_mm.ops  # noqa: F401  first: mmcv.ops, which others import, takes its operators from it
import cae_mm.checkpoint.loader  # noqa: F401
import cae_mm.checkpoint.sources  # noqa: F401
import cae_mm.checkpoint.timm_weights  # noqa: F401
import cae_mm.checkpoint.tokenizer  # noqa: F401
import cae_mm.datasets  # noqa: F401
import cae_mm.engine  # noqa: F401
import cae_mm.evaluation  # noqa: F401
import cae_mm.models  # noqa: F401
import cae_mm.transforms  # noqa: F401
import cae_mm.visualization  # noqa: F401  of which PicturesHook is for configs
from cae_mm.hub import get_model, list_models, register_configs

__version__ = '0.1.0'
__all__ = ['get_model', 'list_models']

register_configs()
