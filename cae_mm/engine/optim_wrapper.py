"""Optimizer wrapper: bfloat16 where it pays, and no waiting for the device."""
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmpretrain.registry import OPTIM_WRAPPERS
from torch import nn
from torch.distributed.tensor import DTensor


def to_float32(module, args, output):
    """Forward hook that converts a tensor, or those in tuples and lists, to float32."""
    if torch.is_tensor(output):
        return output.float()
    return type(output)(to_float32(module, args, part) for part in output)


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """An OptimWrapper that runs the model under autocast and never waits for the device.

    The norm of the gradients stays on the device in ``last_grad_norm`` (a 0-d tensor, None before
    the first update); ``TrainingMonitor`` logs it.

    Args:
        amp (bool, optional): autocast on or off. None: on for CUDA, off (float32) for CPU.
        float32_outputs (Sequence[str]): parts of the model, such as 'neck', that give their outputs, a
            tensor or tuples and lists of tensors, in float32 to what follows.
        dtype (str): 'bfloat16'. float16 needs loss scaling, which mmengine's AmpOptimWrapper does.
        kwargs: arguments of :class:`mmengine.optim.OptimWrapper`, e.g. ``clip_grad`` and
            ``accumulative_counts``.

    Raises:
        ValueError: for another dtype; in ``optim_context``, for a part that the model does not have.
    """

    def __init__(self, *args, amp: bool | None = None, float32_outputs: Sequence[str] = (),
                 dtype: str = 'bfloat16', **kwargs):
        super().__init__(*args, **kwargs)
        if dtype != 'bfloat16':
            raise ValueError(f"dtype='{dtype}': AutocastOptimWrapper does bfloat16 only. Use "
                             "type='AmpOptimWrapper' for float16, amp=False for float32")
        self.device_type = self.optimizer.param_groups[0]['params'][0].device.type
        self.amp = self.device_type == 'cuda' if amp is None else amp
        self.float32_outputs = float32_outputs
        self.last_grad_norm: torch.Tensor | None = None
        # The first group has the full learning rate: no need for mmengine's stand-in group, whose
        # rate is not scaled with the batch size.
        self.base_param_settings = None

    @contextmanager
    def optim_context(self, model: nn.Module):
        """Enter autocast, and skip gradient synchronisation while gradients accumulate."""
        with super().optim_context(model), torch.autocast(
                self.device_type, torch.bfloat16, enabled=self.amp), ExitStack() as hooks:
            if self.amp:
                for part in self._parts(model):
                    hooks.enter_context(part.register_forward_hook(to_float32))
            yield

    def _parts(self, model: nn.Module) -> list[nn.Module]:
        model = model.module if is_model_wrapper(model) else model
        parts = dict(model.named_modules())
        for name in self.float32_outputs:
            if name not in parts:
                raise ValueError(f'float32_outputs={self.float32_outputs}: {type(model).__name__} has no '
                                 f'{name}, but {", ".join(name for name, _ in model.named_children())}')
        return [parts[name] for name in self.float32_outputs]

    def _clip_grad(self) -> None:
        params = [param for group in self.optimizer.param_groups for param in group['params']
                  if param.grad is not None]
        if params:
            norm = self.clip_func(params, **self.clip_grad_kwargs)
            self.last_grad_norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
