"""Reproducible samples, a sampler that can continue in mid-epoch, and checks of the data."""
from .annotations import AnnotationCheckHook
from .bad_files import BadFilesHook
from .classes import ClassesHook
from .image_folder import ImageFolder
from .reader import UnreadableFile
from .reproducible import ReproducibleDataset
from .sampler import EndlessSampler, EpochSampler
from .shards import ShardedImages

__all__ = [
    'AnnotationCheckHook', 'BadFilesHook', 'ClassesHook', 'EndlessSampler', 'EpochSampler', 'ImageFolder',
    'ReproducibleDataset', 'ShardedImages', 'UnreadableFile'
]
