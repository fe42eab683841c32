"""LARS, for the very large batches of linear probing."""
from mmpretrain.registry import OPTIMIZERS
from timm.optim import Lars


@OPTIMIZERS.register_module()
class TimmLars(Lars):
    """timm's LARS by the rules of the official linear probing.

    A matrix steps by its gradient times ``trust_coeff * |weights| / |gradient|``, also without
    weight decay. A 1-D parameter (bias, norm) steps without this ratio and without weight decay,
    in whatever group the optimizer's constructor has put it.

    The learning rate multiplies the momentum, as in torch.optim.SGD and the official code.
    mmpretrain's LARS accumulates gradients times their learning rates, which is something else as
    soon as the rate changes, and it waits for the device twice per parameter and step.

    Args:
        params (Iterable): parameters, or groups of them.
        always_adapt (bool): use the ratio without weight decay too.
        kwargs: ``lr``, ``momentum``, ``weight_decay``, ``trust_coeff`` (0.001) and timm's others.

    Source: the optimizer of the official linear probing, which runs it without weight decay.
    """

    def __init__(self, params, always_adapt=True, **kwargs):
        super().__init__(params, always_adapt=always_adapt, **kwargs)

    def add_param_group(self, param_group: dict) -> None:
        """Add a group as up to two: its matrices and its 1-D parameters."""
        super().add_param_group(param_group)
        group = self.param_groups.pop()
        flat = [param.ndim <= 1 for param in group['params']]
        for is_flat, rules in ((False, {}), (True, dict(weight_decay=0., always_adapt=False))):
            members = {key: [value for value, f in zip(group[key], flat, strict=True) if f == is_flat]
                       for key in ('params', 'param_names') if key in group}
            if members['params']:
                self.param_groups.append(group | members | rules)
