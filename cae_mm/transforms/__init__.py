"""Transforms of pre-training and probing, registered in mmpretrain's TRANSFORMS."""
from .crop import ClippedResizedCrop, TwoViewCrop
from .formatting import PackViews
from .loading import LoadRGBImage
from .masks import BlockMask, RandomMask

__all__ = [
    'BlockMask', 'ClippedResizedCrop', 'LoadRGBImage', 'PackViews', 'RandomMask', 'TwoViewCrop'
]
