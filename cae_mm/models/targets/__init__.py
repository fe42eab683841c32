"""What is decoded: codes of a tokenizer, pixels, or features of a teacher."""
from cae_mm.models.targets.base import TargetGenerator
from cae_mm.models.targets.dalle import DALLETokenizer
from cae_mm.models.targets.dvae import DiscreteVAE
from cae_mm.models.targets.logits import TokenizerLogits
from cae_mm.models.targets.pixels import PixelTarget
from cae_mm.models.targets.teacher import TeacherFeatures

__all__ = ['DALLETokenizer', 'DiscreteVAE', 'PixelTarget', 'TargetGenerator', 'TeacherFeatures',
           'TokenizerLogits']
