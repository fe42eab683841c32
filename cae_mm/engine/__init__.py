"""Optimisation, training loop, hooks and command line, registered in mmpretrain's registries."""
from cae_mm.engine.batch_size import BatchSizeHook
from cae_mm.engine.hangs import HangHook
from cae_mm.engine.log import LogBackend, MLflowBackend
from cae_mm.engine.loops import ResumableEpochLoop, ResumableIterLoop
from cae_mm.engine.monitor import TrainingMonitor
from cae_mm.engine.optim_wrapper import AutocastOptimWrapper
from cae_mm.engine.optimizers import TimmLars
from cae_mm.engine.param_groups import LayerDecayOptimWrapperConstructor
from cae_mm.engine.runner import TrainingRunner
from cae_mm.engine.safe_checkpoint import SafeCheckpointHook
from cae_mm.engine.schedules import WarmupCosineLR
from cae_mm.engine.sharding import ReplicatedModel, ShardedModel
from cae_mm.engine.signals import SignalHook

__all__ = [
    'AutocastOptimWrapper', 'BatchSizeHook', 'HangHook', 'LayerDecayOptimWrapperConstructor', 'LogBackend',
    'MLflowBackend', 'ReplicatedModel', 'ResumableEpochLoop', 'ResumableIterLoop', 'SafeCheckpointHook',
    'ShardedModel', 'SignalHook', 'TimmLars', 'TrainingMonitor', 'TrainingRunner', 'WarmupCosineLR'
]
