"""Optimizer constructor: which parameters decay, and how the learning rate falls with depth."""
from collections import defaultdict

from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from mmpretrain.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor:
    """Build the optimizer with one parameter group per learning-rate scale and weight decay.

    1-D parameters (norms, layer scales, q and v biases) and everything named ``bias`` are not
    decayed; all else is, the class and mask tokens included. A parameter of the backbone in layer
    ``i`` of ``n`` gets the learning rate times ``layer_decay_rate ** (n - 1 - i)``, where the
    backbone's ``get_layer_depth(name, prefix)`` knows ``(i, n)``; everything outside the backbone
    has scale 1. The backbone is the one part that has this method, wherever it is in a classifier,
    a detector, a segmentor or a wrapper of one. Few groups keep the optimizer at a few large
    kernels. AdamW is fused by default.

    Args:
        optim_wrapper_cfg (dict): config of the optimizer wrapper with its ``optimizer``.
        paramwise_cfg (dict, optional): ``layer_decay_rate`` (float, 1: the same rate everywhere),
            ``decay_cls_token`` (bool, True), ``no_decay`` (names that are not decayed, each the end
            of a parameter's name).

    Raises:
        ValueError: for an unknown key, a model with no such backbone or with several, or a trainable
            parameter whose depth is unknown.

    Source: the parameter groups of the official pre-training, fine-tuning and detection code.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        options = dict(layer_decay_rate=1., decay_cls_token=True, no_decay=())
        unknown = set(paramwise_cfg or ()) - set(options)
        if unknown:
            raise ValueError(f'unknown paramwise_cfg {sorted(unknown)}: use {sorted(options)}')
        options.update(paramwise_cfg or {})
        self.layer_decay_rate = options['layer_decay_rate']
        if isinstance(options['no_decay'], str):
            raise ValueError(f"no_decay='{options['no_decay']}' is one string: give a list")
        self.no_decay = tuple(options['no_decay'])
        if not options['decay_cls_token']:
            self.no_decay += ('cls_token',)
        self.optim_wrapper_cfg = dict(optim_wrapper_cfg)

    def __call__(self, model: nn.Module):
        """Return the optimizer wrapper for the trainable parameters of ``model``."""
        model = model.module if is_model_wrapper(model) else model
        wrapper_cfg = dict(self.optim_wrapper_cfg)
        # Plain dicts: torch.compile does not trace through an optimizer with ConfigDict groups.
        optimizer_cfg = dict(wrapper_cfg.pop('optimizer'))
        groups = self.param_groups(model, optimizer_cfg['lr'],
                                   optimizer_cfg.get('weight_decay', 0.))
        if optimizer_cfg['type'] == 'AdamW' and 'foreach' not in optimizer_cfg:
            devices = {param.device.type for group in groups for param in group['params']}
            optimizer_cfg.setdefault('fused', devices <= {'cpu', 'cuda'})
        optimizer = OPTIMIZERS.build(dict(optimizer_cfg, params=groups))
        wrapper_cfg.setdefault('type', 'OptimWrapper')
        return OPTIM_WRAPPERS.build(dict(wrapper_cfg, optimizer=optimizer))

    def param_groups(self, model: nn.Module, lr: float, weight_decay: float) -> list:
        """Group the trainable parameters, the group with the full learning rate first.

        Returns:
            list[dict]: ``params``, ``lr``, ``lr_scale``, ``weight_decay`` and ``param_names``.
        """
        members = defaultdict(list)
        prefix, backbone = self._backbone(model) if self.layer_decay_rate != 1. else (None, None)
        for name, param in model.named_parameters():
            if not param.requires_grad:
                continue
            flat = param.ndim <= 1 or name.endswith('.bias') or name.endswith(self.no_decay)
            scale = 1.
            if backbone is not None and name.startswith(prefix):
                layer, num_layers = self._checked(name, backbone.get_layer_depth(name, prefix))
                scale = self.layer_decay_rate**(num_layers - 1 - layer)
            members[scale, 0. if flat else weight_decay].append((name, param))
        if not members:
            raise ValueError('the model has no trainable parameter: is everything frozen?')
        groups = []
        for scale, decay in sorted(members, reverse=True):
            named = members[scale, decay]
            groups.append(dict(
                params=[param for _, param in named], param_names=[name for name, _ in named],
                lr=lr * scale, lr_scale=scale, weight_decay=decay))
        self._log(groups)
        return groups

    def _backbone(self, model: nn.Module) -> tuple[str, nn.Module]:
        found = [(f'{name}.' if name else '', module) for name, module in model.named_modules()
                 if hasattr(module, 'get_layer_depth')]
        # mmpretrain's classifiers have the method too, and pass on to their backbones.
        found = [(name, module) for name, module in found
                 if not any(other != name and other.startswith(name) for other, _ in found)]
        if len(found) != 1:
            parts = ', '.join(name for name, _ in found) or 'none'
            raise ValueError(f'layer_decay_rate={self.layer_decay_rate} needs exactly one part of '
                             f'{type(model).__name__} with get_layer_depth(name, prefix), found '
                             f'{parts}. CAEViT has it, as mmpretrain\'s vision transformers do')
        return found[0]

    @staticmethod
    def _checked(name: str, depth: tuple[int, int] | None) -> tuple[int, int]:
        if depth is None or not 0 <= depth[0] < depth[1]:
            raise ValueError(f'get_layer_depth gives no layer for the trainable parameter {name}: '
                             f'{depth}. Freeze it, or give it a layer there')
        return depth

    @staticmethod
    def _log(groups: list) -> None:
        lines = [f'{"lr scale":>10}{"lr":>12}{"decay":>8}{"tensors":>9}{"parameters":>13}']
        lines += [
            f'{group["lr_scale"]:10.4g}{group["lr"]:12.4g}{group["weight_decay"]:8.3g}'
            f'{len(group["params"]):9d}{sum(p.numel() for p in group["params"]):13,d}'
            for group in groups
        ]
        print_log('Parameter groups:\n' + '\n'.join(lines), logger='current')
