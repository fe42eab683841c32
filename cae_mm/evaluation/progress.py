"""How far a long computation is."""
import sys

from mmengine.dist import is_main_process
from tqdm import tqdm


def progress_bar(name: str, total: int, unit: str, show: bool = True) -> tqdm:
    """A bar of the first rank; in a log, such as that of a cluster job, it moves twice a minute.

    Args:
        name (str): what is computed.
        total (int): number of its items.
        unit (str): what an item is, in the plural.
        show (bool): whether there is one at all.
    """
    return tqdm(desc=name, total=total, unit=f' {unit}', disable=not (show and is_main_process()),
                mininterval=0.1 if sys.stderr.isatty() else 30, maxinterval=30)
