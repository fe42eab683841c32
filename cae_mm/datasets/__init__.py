"""Reproducible samples, a sampler that can continue in mid-epoch, and a report of bad files."""
from .hook import BadFilesHook
from .reproducible import ReproducibleDataset
from .sampler import EpochSampler

__all__ = ['BadFilesHook', 'EpochSampler', 'ReproducibleDataset']
