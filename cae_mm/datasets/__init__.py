"""Reproducible samples, a sampler that can continue in mid-epoch, and checks of the data."""
from .classes import ClassesHook
from .hook import BadFilesHook
from .reproducible import ReproducibleDataset
from .sampler import EndlessSampler, EpochSampler

__all__ = ['BadFilesHook', 'ClassesHook', 'EndlessSampler', 'EpochSampler', 'ReproducibleDataset']
