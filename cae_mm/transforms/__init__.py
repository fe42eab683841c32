"""Transforms of pre-training and probing, registered in mmpretrain's TRANSFORMS."""
from .crop import ClippedResizedCrop, TwoViewCrop
from .formatting import PackViews
from .loading import LoadImageFromFile, LoadRGBImage
from .masks import BlockMask, RandomMask

__all__ = [
    'BlockMask', 'ClippedResizedCrop', 'LoadImageFromFile', 'LoadRGBImage', 'PackViews', 'RandomMask',
    'TwoViewCrop'
]
