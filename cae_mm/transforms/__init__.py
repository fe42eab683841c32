"""Transforms of the pre-training pipeline, registered in mmpretrain's TRANSFORMS."""
from .crop import TwoViewCrop
from .formatting import PackViews
from .loading import LoadRGBImage
from .masks import BlockMask, RandomMask

__all__ = ['BlockMask', 'LoadRGBImage', 'PackViews', 'RandomMask', 'TwoViewCrop']
