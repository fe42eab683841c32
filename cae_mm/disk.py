"""Reading from disks that hold anything: what would hang is not opened, no link is followed in a circle."""
import logging
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log

from cae_mm.atomic import write_atomically

# Of the files that are taken for pictures, wherever a folder is read.
SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp', '.gif')
NAMED = 10  # so many are named at once, the others counted


def read_regular(path: str | Path, most: int | None = None, part: tuple[int, int] | None = None) -> bytes:
    """The content of a file; a FIFO, a socket or a device, which may never answer, is refused.

    Args:
        path (str | Path): the file.
        most (int, optional): so many bytes it may have.
        part (tuple[int, int], optional): the first byte and the number of bytes that are read.

    Raises:
        OSError: of the system, for something that is no regular file, for more than ``most`` bytes, and
            for a file that ends before ``part`` does.
    """
    def opener(name, flags):
        return os.open(name, flags | getattr(os, 'O_NONBLOCK', 0))

    _check_regular(path, os.stat(path).st_mode)  # opening alone can do something to a device
    with open(path, 'rb', opener=opener) as file:
        status = os.fstat(file.fileno())
        _check_regular(path, status.st_mode)  # it may have become another meanwhile
        if most is not None and status.st_size > most:
            raise OSError(f'{path} has {status.st_size:,} bytes, more than the {most:,} that are read')
        if part is None:
            return file.read()
        file.seek(part[0])
        content = file.read(part[1])
        if len(content) < part[1]:
            raise OSError(f'{path} ends before byte {sum(part):,}')
        return content


def _check_regular(path, mode):
    if not stat.S_ISREG(mode):
        kind = ('a folder' if stat.S_ISDIR(mode) else 'a FIFO' if stat.S_ISFIFO(mode) else
                'a socket' if stat.S_ISSOCK(mode) else 'a device')
        raise OSError(f'{path} is {kind}, not a file')


def walk(folder: str | Path, passed: dict[str, str], recursive: bool = True) -> Iterator[tuple[str, bool]]:
    """What is in a folder; links are followed, but each folder is entered once, whatever leads to it.

    Args:
        folder (str | Path): where to begin.
        passed (dict[str, str]): is given the path of what was passed by, and why.
        recursive (bool): whether to enter folders.

    Yields:
        tuple[str, bool]: path below the folder, and whether it is a folder. Hidden files are left out.

    Raises:
        OSError: when ``folder`` itself cannot be listed.
    """
    entered = {*Path(os.path.realpath(folder)).parents}
    folders, links = [''], []  # what a link leads to may be met without it, too
    while folders or links:
        below = folders.pop() if folders else links.pop()
        path = os.path.join(folder, below)
        real = Path(os.path.realpath(path))
        if real in entered:
            passed[path] = f'leads to {real}, which is read already'
            continue
        entered.add(real)
        if below:
            yield below, True
            if not recursive:
                continue
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            if not below:
                raise
            passed[path] = error.strerror
            continue
        for entry in entries:
            name = os.path.join(below, entry.name)
            try:
                if entry.is_dir():
                    (links if entry.is_symlink() else folders).append(name)
                elif not entry.is_file():
                    passed[entry.path] = 'neither a file nor a folder'
                elif not entry.name.startswith('.'):
                    yield name, False
            except OSError as error:
                passed[entry.path] = error.strerror


def list_images(folder: str | Path) -> list[str]:
    """Paths below a folder, sorted, of all files with one of ``SUFFIXES``; logs what others there are."""
    passed: dict[str, str] = {}
    files = sorted(path for path, is_folder in walk(folder, passed) if not is_folder)
    images = [path for path in files if path.lower().endswith(SUFFIXES)]
    log_passed(passed)
    log_used(folder, len(images), Counter(map(suffix_of, set(files).difference(images))))
    return images


def suffix_of(path: str) -> str:
    """What a path is counted as where it is ignored."""
    return os.path.splitext(path)[1].lower() or 'without suffix'


def log_used(folder: str | Path, used: int, ignored: Counter) -> None:
    """Log how many of the files in a folder are used, and what the others are."""
    most = sorted(ignored.items(), key=lambda item: (-item[1], item[0]))[:NAMED]
    kinds = ', '.join(f'{number} {suffix}' for suffix, number in most)
    print_log(printable(f'{folder}: {used + ignored.total()} files, {used} used, {ignored.total()} ignored'
                        + (f' ({kinds})' if kinds else '')), 'current')


def log_passed(passed: dict[str, str]) -> None:
    """Warn of what was passed by."""
    if passed:
        print_log('passed by: ' + named(f'{path} ({why})' for path, why in passed.items()), 'current',
                  level=logging.WARNING)


def named(things: Iterable[str], number: int = NAMED) -> str:
    """The first things in one line that can be printed, and how many more there are."""
    things = list(things)
    more = f'; and {len(things) - number} more' if len(things) > number else ''
    return printable('; '.join(things[:number]) + more)


def printable(text: str) -> str:
    r"""The text with the bytes of names that are not UTF-8 as ``\udcXX``, which JSON reads back."""
    return text.encode('utf-8', 'backslashreplace').decode()


@register_backend('local', force=True, prefixes='')
class RegularFiles(LocalBackend):
    """mmengine's local disk, by :func:`read_regular`, :func:`walk` and :func:`write_atomically`."""

    walk = staticmethod(walk)  # in whose place a list that is kept may stand

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file, all of it or nothing."""
        write_atomically(obj, filepath)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write a text file, all of it or nothing."""
        write_atomically(obj.encode(encoding, 'surrogateescape'), filepath)

    def get(self, filepath: str | Path) -> bytes:
        """Content of a file."""
        return read_regular(filepath)

    def get_text(self, filepath: str | Path, encoding: str = 'utf-8') -> str:
        """Content of a text file, which may list names that are not UTF-8."""
        return read_regular(filepath).decode(encoding, 'surrogateescape')

    def list_dir_or_file(self, dir_path, list_dir=True, list_file=True, suffix=None, recursive=False):
        """Yield paths below a folder, and log what was passed by. Args: those of mmengine's."""
        passed: dict[str, str] = {}
        for path, is_folder in self.walk(dir_path, passed, recursive):
            if (list_dir if is_folder else list_file) and (suffix is None or path.endswith(suffix)):
                yield path
        log_passed(passed)
