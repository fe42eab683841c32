"""Files that appear complete or not at all, whenever the process is killed."""
import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

TEMPORARY = '.partial-'


def write_atomically(content: bytes, path: str | Path) -> None:
    """Write a file by way of a temporary name beside it, replacing a former one at once.

    Args:
        content (bytes): goes to the disk before the file gets its name.
        path (str | Path): its directory is made where it is missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{path.name}{TEMPORARY}{os.getpid()}')
    with open(temporary, 'wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


@register_backend('atomic_local')
class AtomicLocalBackend(LocalBackend):
    """A LocalBackend of mmengine whose files are written atomically."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write ``obj`` to ``filepath``."""
        write_atomically(obj, filepath)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write the text ``obj`` to ``filepath``."""
        write_atomically(obj.encode(encoding), filepath)
