"""Tokenizer weights: fetched, checked, and read without running anything the file contains."""
import hashlib
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_local_rank
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn


class Inert:
    """Stands in for every class and function that a pickle names: keeps its state, does nothing."""

    def __init__(self, *args, **kwargs):
        self.state = {}

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __setstate__(self, state):
        self.state = state


def fetch(checkpoint: str | Path | None, sha256: str | None = None) -> Path:
    """Return the local file of a path or URL; downloads are cached, complete or not at all.

    Args:
        checkpoint (str | Path, optional): a path, or an http(s) URL.
        sha256 (str, optional): the whole hexadecimal digest the file must have.

    Raises:
        FileNotFoundError: when there is none, the path names no file, or the download fails.
        ValueError: when the digest differs.
    """
    if checkpoint is None:
        raise FileNotFoundError('checkpoint=None: no file of a tokenizer is named')
    url = str(checkpoint)
    if url.startswith(('http://', 'https://')):
        path = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(url).path).name)
        if get_local_rank() == 0 and not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                torch.hub.download_url_to_file(url, str(path))  # to a temporary name, then renamed
            except OSError as error:
                raise FileNotFoundError(
                    f'cannot download {url}: {error}. Fetch it where there is a network, and give '
                    f'its path or put it at {path}') from error
        barrier()
    else:
        path = Path(checkpoint).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'there is no tokenizer checkpoint at {path}')
    if sha256 is not None:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != sha256.lower():
            raise ValueError(f'{path} has sha256 {found}, not {sha256}: delete it and download it '
                             'again, or correct sha256 if this is the file you want')
    return path


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a state dict, a runner's checkpoint or a pickled module; run nothing.

    torch's ``weights_only`` unpickler refuses the names it does not know. Here each of them stands
    for a class that only stores what it is given, so that the tensors remain.

    Raises:
        ValueError: when the file cannot be read in this way, with the way to convert it.
    """
    path = Path(path)
    try:
        try:
            unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except ValueError:  # the format before torch 1.6 cannot be listed: known names only
            unknown = []
        with torch.serialization.safe_globals([(Inert, name) for name in unknown]):
            content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
        raise ValueError(
            f'{path} cannot be read without executing it, or is truncated: {error}. If you trust '
            'its origin, convert it where the code it needs is installed: torch.save(torch.load('
            'PATH, weights_only=False).state_dict(), NEW_PATH)') from error
    if isinstance(content, Inert):
        return dict(module_tensors(content))
    content = content.get('state_dict', content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(map(torch.is_tensor, content.values())):
        raise ValueError(f'{path} holds a {type(content).__name__}, not a state dict of tensors')
    return dict(content)


def module_tensors(module: Inert, prefix: str = ''):
    """Yield the names and tensors of a pickled module, as its ``state_dict`` would name them."""
    for kind in ('_parameters', '_buffers'):
        for name, tensor in module.state.get(kind, {}).items():
            if tensor is not None:
                yield prefix + name, tensor.detach()
    for name, child in module.state.get('_modules', {}).items():
        if isinstance(child, Inert):
            yield from module_tensors(child, f'{prefix}{name}.')


@WEIGHT_INITIALIZERS.register_module()
class PretrainedTokenizer:
    """Fill a tokenizer from a checkpoint that holds each of its weights and no others.

    Args:
        checkpoint, sha256: see :func:`fetch`.
    """

    def __init__(self, checkpoint: str | Path | None = None, sha256: str | None = None):
        self.checkpoint, self.sha256 = checkpoint, sha256

    def __call__(self, module: nn.Module) -> None:
        """Load the weights.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file is not readable, or for names and shapes that differ, with a list.
        """
        state = read_state_dict(fetch(self.checkpoint, self.sha256))
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f'{self.checkpoint} is of another architecture; give the settings it was '
                             f'trained with. {error}') from error
