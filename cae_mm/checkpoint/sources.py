"""Where checkpoints come from: everything that mmengine loads is fetched and read by this project."""
import hashlib
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier, get_local_rank
from mmengine.fileio import PickleHandler, register_handler
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

from cae_mm.checkpoint.files import FileError, read_checkpoint
from cae_mm.parts import in_parts
from cae_mm.seal import HISTORY

HUB, WEIGHTS = 'hf-hub:', 'model.safetensors'


def fetch(checkpoint: str | Path | None, sha256: str | None = None) -> Path:
    """The local file of a path, URL or model of the Hugging Face Hub; downloads are cached.

    Args:
        checkpoint (str | Path, optional): a path, which of a folder is that of its ``model.safetensors``,
            but of one with parts its own; 'hf-hub:OWNER/MODEL', or that with '@REVISION'; or a URL. Each
            may end with ``#sha256=DIGEST``.
        sha256 (str, optional): the whole hexadecimal digest the file must have.

    Raises:
        FileNotFoundError: when there is none, or the download fails.
        ValueError: when the digest differs, or for an ``http://`` URL without one.
    """
    if checkpoint is None:
        raise FileNotFoundError('checkpoint=None: no file is named')
    url, _, digest = str(checkpoint).partition('#sha256=')
    sha256 = sha256 or digest
    if url.startswith(('http://', 'https://')):
        if url.startswith('http://') and not sha256:
            raise ValueError(f'{url}: anybody on the way can change what http:// gives. Take https://, or '
                             f'name the digest: {url}#sha256=DIGEST')
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
    elif url.startswith(HUB):
        # Only here: timm does without it, too, where there is no network.
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError
        model, _, revision = url.removeprefix(HUB).partition('@')
        try:
            path = Path(hf_hub_download(model, WEIGHTS, revision=revision or None))
        except (OSError, ValueError, HfHubHTTPError) as error:
            raise FileNotFoundError(f'cannot download {WEIGHTS} of {url}: {error}. Fetch it where there is '
                                    'a network, and give the path of its folder') from error
    else:
        path = Path(url).expanduser()
        if in_parts(path):
            if sha256:
                raise ValueError(f'{path} is a folder, which has no sha256: make a file of it with '
                                 f'tools/convert.py {path} OUT.pth')
            return path
        path = path / WEIGHTS if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f'there is no checkpoint at {path}')
    if sha256:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != sha256.lower():
            raise ValueError(f'{path} has sha256 {found}, not {sha256}: delete it and download it '
                             'again, or correct sha256 if this is the file you want')
    return path


def restore_histories(content: dict) -> None:
    """Give mmengine the history of the log as it knows it; a ValueError for parts of another kind."""
    parts = dict(meta=dict, message_hub=dict, optimizer=dict, param_schedulers=(list, dict))
    for key, kinds in parts.items():
        if not isinstance(content.get(key, {}), kinds) and (key, content[key]) != ('optimizer', None):
            raise ValueError(f'its {key} is a {type(content[key]).__name__}, of which no training is made')
    try:
        scalars = content.get('message_hub', {}).get('log_scalars', {})
        for name, history in scalars.items():
            log, count = (np.asarray(history[key]) for key in HISTORY[:2])
            scalars[name] = HistoryBuffer(log, count, history['max_length'])
    except (AssertionError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(f'its message_hub holds no history of a log: {error}') from error


@CheckpointLoader.register_scheme(prefixes=('', 'http://', 'https://'), force=True)
def load_from_file(filename: str, map_location=None) -> dict:
    """What mmengine asks for when it resumes or loads: a path or a URL, see ``fetch``."""
    content = read_checkpoint(
        fetch(filename), map_location if isinstance(map_location, (str, torch.device)) else None)
    try:
        restore_histories(content)
    except ValueError as error:
        raise FileError(f'{filename} is refused: {error}') from error
    if isinstance(meta := content.get('meta'), dict):
        # mmengine runs these texts as Python: one in its Runner.resume, one in its inferencers.
        meta.pop('config', None), meta.pop('cfg', None)
    return content


# mmengine's loaders of names, such as torchvision://resnet50, call these.
mmengine_checkpoint.load_from_http = mmengine_checkpoint._safe_torch_load = load_from_file


@CheckpointLoader.register_scheme(
    prefixes=['pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://'], force=True)
def load_from_store(filename: str, map_location=None) -> None:
    """Refuse what mmengine would unpickle while it comes from an object store."""
    raise ValueError(f'{filename}: copy it to a file, which is read without running anything in it')


@register_handler(['pkl', 'pickle'])
class RefusedPickles(PickleHandler):
    """Pickled annotations and proposals are written, and never read: reading would run them."""

    def load_from_fileobj(self, file, **kwargs):
        """Raise a ValueError."""
        raise ValueError('a .pkl file runs code when it is read: write what is in it as .json')
