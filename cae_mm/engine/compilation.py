"""What of a model torch.compile compiles, and when."""
from collections.abc import Iterator

import torch
from torch import nn


def compile_model(model: nn.Module, option: bool | str | dict | None) -> None:
    """Compile the outermost parts of a model that have ``compile_forward``, in place.

    Names in checkpoints stay as they are. Losses, heads of other libraries, and what changes from batch to
    batch stay eager.

    Args:
        model (nn.Module): bare or wrapped; a ``ContextAutoencoder``, or anything with a ``CAEViT`` in it.
        option (bool | str | dict, optional): ``compile_model`` of a config. 'auto': on GPUs; True:
            everywhere; a dict: everywhere, with these arguments of torch.compile; False, None: nowhere.

    Raises:
        ValueError: for another option, or a model without such a part.
    """
    if option not in (None, False, True, 'auto') and not isinstance(option, dict):
        raise ValueError(f"compile_model={option!r}: choose 'auto' (on GPUs), True, False, or a dict of "
                         "torch.compile's arguments")
    if not option or (option == 'auto' and not torch.cuda.is_available()):
        return
    parts = list(_compilable(model))
    if not parts:
        raise ValueError(f'compile_model={option!r}: {type(model).__name__} has no part that is made for '
                         'it, which are ContextAutoencoder and CAEViT: set it to False')
    for part in parts:
        part.compile_forward(**(option if isinstance(option, dict) else {}))


def _compilable(module: nn.Module) -> Iterator[nn.Module]:
    if hasattr(module, 'compile_forward'):
        yield module
    else:
        for child in module.children():
            yield from _compilable(child)
