"""Parts of large files on a disk, or in a store that fsspec reaches, some of which are kept on a disk."""
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import fsspec
from mmengine.logging import print_log

from cae_mm.atomic import TEMPORARY, write_atomically
from cae_mm.disk import read_regular

with suppress(ImportError):  # Windows has none, and so no cache
    import fcntl


class Storage:
    """The files below a folder or a URL of fsspec, such as s3://BUCKET/NAME.

    It holds nothing open, so that it can be forked and pickled. Keys, end points and the like of a store
    are those of fsspec and its library, in the environment or their own files.

    Args:
        folder (str): path or URL.
        cache_dir (Path): where files of a URL are kept, for all processes of this machine.
        cache_bytes (int): what :meth:`fetch` keeps at most, in all folders beside ``cache_dir`` together.
    """

    def __init__(self, folder: str, cache_dir: Path, cache_bytes: int):
        self.folder, self.cache_dir, self.cache_bytes = folder.rstrip('/'), cache_dir, cache_bytes
        self.remote = '://' in folder

    def path(self, name: str) -> str:
        """Path or URL of a file."""
        return f'{self.folder}/{name}'

    def sizes(self) -> dict[str, int]:
        """Bytes of each file, by its name below the folder."""
        store, root = fsspec.url_to_fs(self.folder)
        files = store.find(root, detail=True).values()
        return {os.path.relpath(file['name'], root): file['size'] for file in files}

    def read(self, name: str, start: int, size: int) -> bytes:
        """A part of a file: of the one that is kept here, if it is, or by a request of its own.

        Raises:
            OSError: of the system or the store, and where the file ends before the part does.
        """
        try:
            path = self.cache_dir / name if self.remote else self.path(name)
            return read_regular(path, part=(start, size))
        except FileNotFoundError:
            if not self.remote:
                raise
        store, path = fsspec.url_to_fs(self.path(name))
        content = store.cat_file(path, start=start, end=start + size)
        if len(content) < size:
            raise OSError(f'{self.path(name)} ends before byte {start + size:,}')
        return content

    def keep(self, name: str) -> str:
        """Path of a whole file on a disk, to which it is fetched, to stay there, if it is in a store."""
        if not self.remote:
            return self.path(name)
        with self._lock():
            if not (self.cache_dir / name).exists():
                store, path = fsspec.url_to_fs(self.path(name))
                write_atomically(store.cat_file(path), self.cache_dir / name)
        return str(self.cache_dir / name)

    def fetch(self, sizes: dict[str, int]) -> None:
        """Begin to fetch files that will be read soon; those asked for longest ago make room.

        Args:
            sizes (dict[str, int]): bytes of each by its name.
        """
        for name, size in sizes.items() if self.remote else ():
            try:
                os.utime(self.cache_dir / name)
            except FileNotFoundError:
                Thread(target=self._fetch, args=(name, size), daemon=True).start()

    def _fetch(self, name, size):
        place = self.cache_dir / name
        partial = place.with_name(place.name + TEMPORARY)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(partial, os.O_RDWR | os.O_CREAT), 'rb+') as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if place.exists() or not self._make_room(partial, size):
                    return
                store, path = fsspec.url_to_fs(self.path(name))
                with store.open(path, 'rb') as source:
                    shutil.copyfileobj(source, file, 2**24)
                file.flush()
                os.fsync(file.fileno())  # after a power failure there is all of it or nothing
                with self._lock():
                    os.replace(partial, place)
        except BlockingIOError:  # another process is at it
            return
        except Exception as error:  # stores raise what they like
            partial.unlink(missing_ok=True)
            print_log(f'{self.path(name)} was not fetched, its images are read one by one: {error!r}',
                      'current', logging.WARNING)

    def _make_room(self, partial, size):
        """Reserve the bytes for a file; False if they are not to be had."""
        with self._lock():
            files = {path: path.stat() for path in self.cache_dir.parent.rglob('*.tar*') if path != partial}
            free = self.cache_bytes - size - sum(facts.st_size for facts in files.values())
            for path, facts in sorted(files.items(), key=lambda file: file[1].st_mtime):
                if free >= 0:
                    break
                with suppress(BlockingIOError), open(path, 'rb') as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not what is being fetched
                    path.unlink()
                    free += facts.st_size
            if free >= 0:
                os.truncate(partial, size)
            return free >= 0

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        with open(self.cache_dir.parent / '.lock', 'ab') as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
