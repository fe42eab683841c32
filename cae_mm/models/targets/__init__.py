from cae_mm.models.targets.pixels import PixelTarget

__all__ = ['PixelTarget']
