"""What exists at once in a step, operator by operator, what it computes and what it sends."""
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial

import torch
from mmengine.dist import get_world_size
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
for end in ('', '_backward'):  # the counter knows attention on GPUs alone
    flop_registry.setdefault(getattr(aten, f'_scaled_dot_product_flash_attention_for_cpu{end}'),
                             flop_registry[getattr(aten, f'_scaled_dot_product_flash_attention{end}')])
INDEXING = aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default


class Memory(TorchDispatchMode):
    """Adds up the storages that exist, and answers what no shape tells: yes, 0 or 1.0.

    What is computed from masks alone is known. A convolution has copies of what it reads, in the order that
    oneDNN or cuDNN wants. Gradients of ``kept`` bytes are there from the start, as where they accumulate.
    """

    def __init__(self):
        super().__init__()
        self.now = self.peak = self.gradients = self.gradients_at_peak = self.operations = self.sent = 0
        self.alive, self.sizes, self.kept, self.collectives = {}, {}, 0, Counter()

    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        if DTensor in kinds:
            return NotImplemented  # what it does with the part of this process comes here again
        if function.namespace in ('c10d', '_c10d_functional'):
            self._send(function._opname, args)
        if function is aten._local_scalar_dense.default and args[0].constant is None:
            return args[0].dtype == torch.bool or int(args[0].is_floating_point())
        axis, index = next(((axis, index) for axis, index in enumerate(args[1]) if index is not None),
                           (0, None)) if function in INDEXING else (0, None)
        if index is not None and index.dtype == torch.bool and function is not aten.index.Tensor:
            output = args[0]
        elif index is not None and index.dtype == torch.bool and index.constant is None:
            output = args[0].flatten(axis, axis + index.ndim - 1).clone()
        else:
            output = function(*args, **(kwargs or {}))
        if count := flop_registry.get(function._overloadpacket):
            self.operations += count(*args, **(kwargs or {}), out_val=output)
        tree_map_only(Tensor, self._add, output)
        if function in (aten.convolution.default, aten.convolution_backward.default):
            self._note(bytes_of(part for part in args if torch.is_tensor(part)))
        return output

    def _add(self, tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in self.alive:
            self.alive[storage._cdata] = weakref.ref(storage, partial(self._free, storage._cdata))
            self.sizes[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self._note()

    def _note(self, work_space=0):
        missing = max(0, self.kept - self.gradients)
        if (total := self.now + missing + work_space) > self.peak:
            self.peak, self.gradients_at_peak = total, self.gradients + missing

    def _free(self, key, _):
        self.now -= self.sizes.pop(key)
        del self.alive[key]

    def resize(self, resized: Callable, storage: torch.UntypedStorage, size: int) -> None:
        """Give a storage, as FSDP does with what it has gathered, another number of bytes."""
        resized(storage, size)
        if storage._cdata in self.sizes:
            self.now += size - self.sizes[storage._cdata]
            self.sizes[storage._cdata] = size
            self._note()

    def _send(self, name, args):
        times = 2 if 'reduce_' in name and 'scatter' not in name else 1  # a scatter and a gather
        if 'gather' in name or 'reduce' in name:
            largest = max(bytes_of([part]) for part in tree_leaves(args) if torch.is_tensor(part))
            self.sent += times * largest * (1 - 1 / get_world_size())
            self.collectives[name.strip('_')] += 1

    def add_gradient(self, parameter: Tensor) -> None:
        """Count the gradient that a parameter has got."""
        self.gradients += bytes_of([parameter.grad])


def bytes_of(tensors) -> int:
    """Bytes of tensors, without what they share; of those that processes share out, this one's part."""
    parts = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    return sum(part.numel() * part.element_size() for part in parts)
