"""Before mmpretrain is imported: what it, mmdet and mmseg do at import that is in the way."""
import logging
from functools import wraps
from importlib.metadata import PackageNotFoundError, version

import mmengine.logging

print_log = mmengine.logging.print_log


@wraps(print_log)
def quiet_log(msg, logger=None, level=logging.INFO) -> None:
    """mmengine's ``print_log``, but for a line of each of the three at every start (1.3.6, 3.5.1, 1.4.2).

    They mean to log it for debugging, and print it: VALUE=$(python -c ...) would have it.
    """
    if not str(msg).startswith('Could not import OneDL'):
        print_log(msg, logger, level)


mmengine.logging.print_log = quiet_log

from mmpretrain.utils import dependency  # noqa: E402


def transformers_version() -> int:
    """The first number of the version of transformers; 0 where it is not installed."""
    try:
        return int(version('transformers').split('.')[0])
    except PackageNotFoundError:
        return 0


# Of the names they import from it some are gone, and then classes have no bases (mmpretrain 1.3.6).
if transformers_version() > 4:
    dependency.WITH_MULTIMODAL = False
