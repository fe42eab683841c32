"""Reproducible samples, a sampler that can continue in mid-epoch, and checks of the data."""
from .annotations import AnnotationCheckHook
from .classes import ClassesHook
from .hook import BadFilesHook
from .reproducible import ReproducibleDataset
from .sampler import EndlessSampler, EpochSampler

__all__ = [
    'AnnotationCheckHook', 'BadFilesHook', 'ClassesHook', 'EndlessSampler', 'EpochSampler',
    'ReproducibleDataset'
]
