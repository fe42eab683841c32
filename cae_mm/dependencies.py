"""Before mmpretrain is imported: its language models cannot be, where transformers 5 is installed."""
from importlib.metadata import PackageNotFoundError, version

from mmpretrain.utils import dependency


def transformers_version() -> int:
    """The first number of the version of transformers; 0 where it is not installed."""
    try:
        return int(version('transformers').split('.')[0])
    except PackageNotFoundError:
        return 0


# Of the names they import from it some are gone, and then classes have no bases (mmpretrain 1.3.6).
if transformers_version() > 4:
    dependency.WITH_MULTIMODAL = False
