"""A step on tensors that have a device, a shape and no numbers: what a GPU would do, without one."""
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from mmengine.model import revert_sync_batchnorm
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from cae_mm.models.cae import split_mask

aten = torch.ops.aten
for end in ('', '_backward'):  # the registry knows attention on GPUs alone
    flop_registry.setdefault(getattr(aten, f'_scaled_dot_product_flash_attention_for_cpu{end}'),
                             flop_registry[getattr(aten, f'_scaled_dot_product_flash_attention{end}')])


class Trace(TorchDispatchMode):
    """Count the kernels of a program, their FLOPs, the bytes that they read and write, and logits.

    Args:
        logits (int): their number for a patch; ``float32_logits`` is of how many patches at most they stood
            in a tensor of float32.

    Raises:
        RuntimeError: while it is active, for a copy to or from a GPU that the host waits for. An ``item``,
            a boolean index, or a tensor of another device is an error of ``FakeTensorMode`` itself.
    """

    def __init__(self, logits: int = 0):
        super().__init__()
        self.logits, self.kernels, self.flops, self.bytes = logits, 0, 0, 0
        self.float32_logits = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        name = function.overloadpacket.__name__
        if function.namespace == 'prim' or function.is_view or name.lstrip('_').startswith(
                ('empty', 'new_empty', 'unsafe_view', 'lift_fresh')):
            return output
        read, written = ([leaf for leaf in tree_leaves(tree) if torch.is_tensor(leaf)]
                         for tree in ((args, kwargs), output))
        if name in ('_to_copy', 'copy_') and len({each.device.type for each in read + written}) > 1:
            to_host = (written or read)[0].device.type == 'cpu'
            if to_host or not (kwargs.get('non_blocking') or args[2:3] == (True,)):
                raise RuntimeError(f'the host waits for a copy of {read[-1].device} to '
                                   f'{written[0].device}')
        self.kernels += 1
        self.bytes += sum(each.numel() * each.element_size() for each in read + written)
        if count := flop_registry.get(function.overloadpacket):
            self.flops += count(*args, **kwargs, out_val=output)
        self.float32_logits = max([self.float32_logits, *(
            each.numel() // self.logits for each in written
            if each.dtype == torch.float32 and each.ndim > 1 and each.shape[-1] == self.logits)])
        return output


@contextmanager
def pretend(model: torch.nn.Module, device: str, mask: torch.Tensor | None = None, logits: int = 0):
    """Give a model on meta fake parameters and buffers of a device, and trace what is done with it.

    Args:
        model (nn.Module): on the meta device; in training mode inside.
        device (str): 'cuda', where only forward passes can be traced (autograd asks the driver for the
            device), or 'cpu'. Both compute under autocast in bfloat16.
        mask (Tensor, optional): (B, N) bool of a pre-training. Its indices are made beforehand: on the CPU,
            that is what happens, and it needs numbers.
        logits (int): see ``Trace``.
    """
    indices = split_mask(mask) if mask is not None else ()
    with ExitStack() as stack:
        fake = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        revert_sync_batchnorm(model).to_empty(device=device).train()
        stack.enter_context(mock.patch('cae_mm.models.cae.split_mask',
                                       return_value=tuple(map(fake.from_tensor, indices))))
        # A GPU's attention is the fused one, whatever the precision.
        stack.enter_context(mock.patch('cae_mm.models.layers.PLAIN_TOKENS', 0))
        # Autocast turns itself off where it finds no GPU.
        stack.enter_context(mock.patch('torch.cuda.amp.common.amp_definitely_not_available', bool))
        stack.enter_context(mock.patch('torch.cuda.is_bf16_supported', return_value=True))
        stack.enter_context(torch.autocast(device, torch.bfloat16))
        yield stack.enter_context(Trace(logits))
