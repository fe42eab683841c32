"""The method's parts, each registered in mmpretrain's MODELS."""
from cae_mm.models.cae import ContextAutoencoder
from cae_mm.models.decoder import CAEDecoder
from cae_mm.models.regressor import LatentContextualRegressor
from cae_mm.models.targets import PixelTarget
from cae_mm.models.vit import CAEViT

__all__ = ['CAEDecoder', 'CAEViT', 'ContextAutoencoder', 'LatentContextualRegressor', 'PixelTarget']
