"""Optimizer wrapper: bfloat16 where it pays, and no waiting for the device."""
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmpretrain.registry import OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """An OptimWrapper that runs the model under autocast and never waits for the device.

    The norm of the gradients stays on the device in ``last_grad_norm`` (a 0-d tensor, None before
    the first update); ``TrainingMonitor`` logs it.

    Args:
        amp (bool, optional): autocast on or off. None: on for CUDA, off (float32) for CPU.
        dtype (str): 'bfloat16'. float16 needs loss scaling, which mmengine's AmpOptimWrapper does.
        kwargs: arguments of :class:`mmengine.optim.OptimWrapper`, e.g. ``clip_grad`` and
            ``accumulative_counts``.

    Raises:
        ValueError: for another dtype.
    """

    def __init__(self, *args, amp: bool | None = None, dtype: str = 'bfloat16', **kwargs):
        super().__init__(*args, **kwargs)
        if dtype != 'bfloat16':
            raise ValueError(f"dtype='{dtype}': AutocastOptimWrapper does bfloat16 only. Use "
                             "type='AmpOptimWrapper' for float16, amp=False for float32")
        self.device_type = self.optimizer.param_groups[0]['params'][0].device.type
        self.amp = self.device_type == 'cuda' if amp is None else amp
        self.last_grad_norm: torch.Tensor | None = None
        # The first group has the full learning rate: no need for mmengine's stand-in group, whose
        # rate is not scaled with the batch size.
        self.base_param_settings = None

    @contextmanager
    def optim_context(self, model: nn.Module):
        """Enter autocast, and skip gradient synchronisation while gradients accumulate."""
        with super().optim_context(model), torch.autocast(
                self.device_type, torch.bfloat16, enabled=self.amp):
            yield

    def _clip_grad(self) -> None:
        params = [param for group in self.optimizer.param_groups for param in group['params']
                  if param.grad is not None]
        if params:
            self.last_grad_norm = self.clip_func(params, **self.clip_grad_kwargs)
