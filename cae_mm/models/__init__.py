"""The method's parts, each registered in mmpretrain's MODELS."""
from cae_mm.models.cae import ContextAutoencoder
from cae_mm.models.data_preprocessor import CAEDataPreprocessor
from cae_mm.models.decoder import CAEDecoder, TokenDecoder
from cae_mm.models.heads import AttentiveProbeHead
from cae_mm.models.necks import SimpleFeaturePyramid, ViTFeaturePyramid
from cae_mm.models.regressor import LatentContextualRegressor
from cae_mm.models.targets import (
    DALLETokenizer,
    DiscreteVAE,
    PixelTarget,
    TargetGenerator,
    TeacherFeatures,
)
from cae_mm.models.timm_vit import TimmViT
from cae_mm.models.vit import CAEViT

__all__ = [
    'AttentiveProbeHead', 'CAEDataPreprocessor', 'CAEDecoder', 'CAEViT', 'ContextAutoencoder',
    'DALLETokenizer', 'DiscreteVAE', 'LatentContextualRegressor', 'PixelTarget', 'SimpleFeaturePyramid',
    'TargetGenerator', 'TeacherFeatures', 'TimmViT', 'TokenDecoder', 'ViTFeaturePyramid'
]
