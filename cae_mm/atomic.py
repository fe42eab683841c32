"""Files that appear complete or not at all, whenever the process is killed or the disk is full."""
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY = '.partial-'


def write_atomically(content: bytes, path: str | Path) -> None:
    """Write a file by way of a temporary name beside it, replacing a former one at once.

    Args:
        content (bytes): goes to the disk before the file gets its name.
        path (str | Path): its directory is made where it is missing; a link, device or pipe stays one.

    Raises:
        OSError: see :func:`replacing`.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    with replacing(path, len(content)) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path, size: int) -> Iterator[Path]:
    """A temporary path for a file of ``size`` bytes, which becomes ``path`` when all of it is written.

    Raises:
        OSError: naming the path, the bytes needed and the bytes free; nothing of the file is left then.
    """
    temporary = path.with_name(f'{path.name}{TEMPORARY}{os.getpid()}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, 'rb+') as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        room = ''
        with suppress(OSError):
            room = f', {shutil.disk_usage(path.parent).free:,} are free'
        reason = f'{error.strerror}; {size:,} bytes are needed{room}'
        raise OSError(error.errno, reason, str(path)) from error


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder, which becomes ``path`` when all of it is written, and nothing is left else.

    Raises:
        FileExistsError: when there is something at ``path`` already, other than an empty folder.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(errno.EEXIST, 'there is something already: name a new folder', str(path))
    temporary = path.with_name(f'{path.name}{TEMPORARY}{os.getpid()}')
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.replace(temporary, path)
        sync_directory(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(temporary: Path, path: Path) -> None:
    """Give a folder that is written its name, upon which a former one of this name is removed."""
    sync_directory(temporary)
    outdated = _set_aside(path) if path.exists() else None
    os.replace(temporary, path)
    sync_directory(path.parent)
    if outdated:
        shutil.rmtree(outdated, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a file, or a folder, of which a kill leaves nothing that has its name."""
    if path.is_dir():
        shutil.rmtree(_set_aside(path))
    else:
        path.unlink()


def _set_aside(path: Path) -> Path:
    outdated = path.with_name(f'{path.name}{TEMPORARY}outdated')
    shutil.rmtree(outdated, ignore_errors=True)
    os.replace(path, outdated)
    return outdated


def sync_directory(path: Path) -> None:
    """Put the names in a directory on the disk, where its file system can do that."""
    with suppress(PermissionError):  # one without leave to list it, and any on Windows
        directory = os.open(path, os.O_RDONLY)
        try:
            os.fsync(directory)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(directory)
