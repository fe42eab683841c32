"""Where the configs and tools are, and configs by name from anywhere."""
from difflib import get_close_matches
from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

# OpenMMLab's tools look into .mim. In a wheel it holds the files themselves, in a checkout links to them.
ROOT = (Path(__file__).parent / '.mim/configs').resolve().parent
PREFIX = 'cae_mm::'
MODULE2PACKAGE['cae_mm'] = 'cae_mm'  # which mmengine.hub.get_config asks
base_of = Config._get_cfg_path


def find_config(name: str | Path) -> Path:
    """The file of a config: one that is there, or one of ours.

    Args:
        name (str | Path): path; or of ours the name below configs/, such as 'pretrain/cae_vitb_800e.py',
            also with 'configs/' or 'cae_mm::' before it.

    Raises:
        FileNotFoundError: naming the nearest of ours.
    """
    folder, own = ROOT / 'configs', str(name).removeprefix(PREFIX).removeprefix('configs/')
    for path in (Path(name), folder / own):
        if path.is_file():
            return path
    known = [path.relative_to(folder).as_posix() for path in folder.glob('[!_]*/**/*.py')]
    near = ' or '.join(get_close_matches(own, known, cutoff=0.8))
    raise FileNotFoundError(f'there is no config {name}' + f', do you mean {near}?' * bool(near))


def base_or_ours(path: str, filename: str) -> tuple[str, str | None]:
    """mmengine's reading of a ``_base_``, and of ours: without a scope, since ours name their own."""
    return (str(find_config(path)), None) if path.startswith(PREFIX) else base_of(path, filename)


Config._get_cfg_path = staticmethod(base_or_ours)
