"""Models in several processes: shared out between them (FSDP2), or whole in each (DDP)."""
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from mmengine.dist import broadcast, get_world_size, is_main_process
from mmengine.model import MMDistributedDataParallel
from mmpretrain.registry import MODEL_WRAPPERS
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

UNITS = 'blocks', 'layers'


@MODEL_WRAPPERS.register_module()
class ReplicatedModel(MMDistributedDataParallel):
    """A model that is whole in each process.

    Args:
        bf16_gradients (bool): send gradients in bfloat16, half the bytes, and add them up in it.
        kwargs: of :class:`mmengine.model.MMDistributedDataParallel` and PyTorch's DistributedDataParallel,
            such as ``gradient_as_bucket_view`` and ``static_graph``.
    """

    def __init__(self, *args, bf16_gradients=False, **kwargs):
        super().__init__(*args, **kwargs)
        if bf16_gradients:
            self.register_comm_hook(None, bf16_compress_hook)


@MODEL_WRAPPERS.register_module()
class ShardedModel(nn.Module):
    """A model of which each process keeps a part of all trainable parameters and their optimizer's states.

    PyTorch's ``fully_shard``: a block's parameters are gathered when it runs, and again in its backward
    pass, after which each process gets its part of the gradients. Blocks are the members of lists named
    ``blocks`` or ``layers``; what is in none is gathered once for the whole forward pass. Frozen
    parameters, as a tokenizer's, stay whole. Weights are initialised here, before they are shared out.

    Args:
        module (nn.Module): the model, on its device.
        amp (bool, optional): gather in bfloat16, for autocast; gradients are added up in float32. None: on
            GPUs. On CPU layer norms do not take such parameters.
        reshard_after_forward (bool): False keeps what was gathered until the backward pass: more memory
            and fewer bytes sent.

    Raises:
        ValueError: for a model without such blocks.
    """

    def __init__(self, module: nn.Module, amp: bool | None = None, reshard_after_forward: bool = True):
        super().__init__()
        self.module, self.reshard_after_forward = module, reshard_after_forward
        if hasattr(module, 'init_weights'):
            module.init_weights()
        for tensor in (*module.parameters(), *module.buffers()):
            broadcast(tensor.data)
        self.units = [unit for name, part in module.named_modules() if name.rpartition('.')[2] in UNITS
                      for unit in part.children() if any(p.requires_grad for p in unit.parameters())]
        if not self.units:
            raise ValueError(f'{type(module).__name__} has no {" or ".join(UNITS)} to train, which '
                             'ShardedModel shares out: train it without --fsdp')
        device = next(module.parameters()).device.type
        self.amp = device == 'cuda' if amp is None else amp
        # Without autocast bfloat16 parameters do not go together with float32 inputs.
        self.autocast = partial(torch.autocast, device, torch.bfloat16, enabled=self.amp)
        options = dict(
            mesh=init_device_mesh(device, (get_world_size(),)), reshard_after_forward=reshard_after_forward,
            ignored_params={p for p in module.parameters() if not p.requires_grad},
            # What is added up from block to block stays in float32, as under autocast alone.
            mp_policy=MixedPrecisionPolicy(torch.bfloat16 if self.amp else None, torch.float32,
                                           cast_forward_inputs=False))
        for unit in (*reversed(self.units), module):
            fully_shard(unit, **options)
        module.register_load_state_dict_pre_hook(_share_out_weights)

    def forward(self, *args, **kwargs):
        """What the model gives."""
        return self.module(*args, **kwargs)

    def train_step(self, data, optim_wrapper) -> dict[str, Tensor]:
        """One step; while gradients accumulate they are summed up over the processes each time."""
        return self.module.train_step(data, optim_wrapper)

    def val_step(self, data) -> list:
        """Predictions of a batch in validation, in bfloat16 where parameters are gathered in it."""
        with self.autocast():
            return self.module.val_step(data)

    def test_step(self, data) -> list:
        """Predictions of a batch in testing, see ``val_step``."""
        with self.autocast():
            return self.module.test_step(data)

    def compile_forward(self, **options) -> None:
        """Compile each block; what is gathered for it stays outside."""
        for unit in self.units:
            unit.forward = torch.compile(unit.forward, **{'dynamic': False, **options})


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Have all of a ``ShardedModel`` in each process, so that its parts can run alone."""
    units = [part for part in model.modules() if isinstance(part, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        with model.autocast() if units else nullcontext():
            yield
    finally:
        for unit in units:
            unit.reshard()
            unit.set_reshard_after_forward(model.reshard_after_forward, recurse=False)


@contextmanager
def whole_states(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Let ``state_dict`` of both give whole tensors to the first process, for which all must call it."""
    def whole(value):
        if not isinstance(value, DTensor):
            return value
        value = value.full_tensor()
        return value.cpu() if is_main_process() else None

    def whole_weights(module, state, *args):
        for name, value in state.items():
            state[name] = whole(value)

    def whole_moments(optimizer, state):
        return state | dict(state={index: {name: whole(value) for name, value in values.items()}
                                   for index, values in state['state'].items()})

    hooks = [model.register_state_dict_post_hook(whole_weights),
             optimizer.register_state_dict_post_hook(whole_moments)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def layouts(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The parameters by their names in a checkpoint in parts, see ``read_like``."""
    trained = (parameter for group in optimizer.param_groups for parameter in group['params'])
    return {**{f'state_dict/{name}': parameter for name, parameter in model.named_parameters()},
            **{f'optimizer/{number}': parameter for number, parameter in enumerate(trained)}}


def _share_out(value: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor) or isinstance(value, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _share_out_weights(module: nn.Module, state: dict, prefix: str, *args) -> None:
    for name, parameter in module.named_parameters():
        if prefix + name in state:
            state[prefix + name] = _share_out(state[prefix + name], parameter)


def share_out_states(optimizer: torch.optim.Optimizer, state: dict) -> dict:
    """A pre-hook of the optimizer's ``load_state_dict``: each process takes its part of whole tensors."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
    order = [index for group in state['param_groups'] for index in group['params']]
    likes = dict(zip(order, parameters, strict=False))
    return state | dict(state={
        index: {name: _share_out(value, likes[index]) if torch.is_tensor(value) else value
                for name, value in values.items()} for index, values in state['state'].items()})
