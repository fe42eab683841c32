"""How far a long computation is."""
import sys

from mmengine.dist import is_main_process
from tqdm import tqdm


def progress_bar(name: str, total: int, unit: str, show: bool = True) -> tqdm:
    """A bar of the first rank; in a log, such as that of a cluster job, it moves twice a minute.

    ``unit`` is what one of ``total`` items is, in the plural; ``show``, whether there is a bar at all.
    """
    return tqdm(desc=name, total=total, unit=f' {unit}', disable=not (show and is_main_process()),
                mininterval=0.1 if sys.stderr.isatty() else 30, maxinterval=30)
