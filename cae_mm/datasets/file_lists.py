"""What is in folders, kept from one start of a training to the next, and from one process to another."""
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmengine.logging import print_log

from cae_mm.atomic import write_atomically
from cae_mm.disk import RegularFiles, walk

with suppress(ImportError):  # Windows has none, nor change times of folders
    import fcntl

# Where a folder's change time tells of all that was added, removed or renamed in it: not those of object
# stores and other FUSE file systems, nor 9p and CIFS.
TOLD_BY = set('ext2 ext3 ext4 xfs btrfs zfs tmpfs overlay nfs nfs4 lustre gpfs beegfs ceph'.split())
RECENT = 60  # seconds: in one tick of a clock, of 2 s at most, there may be another change


class FileLists:
    """The lists of some folders below a root, by their paths, and the state of all folders in them.

    Args:
        root (str): folder.
        path (Path): the file in which they are kept.
    """

    def __init__(self, root, path):
        self.root, self.path, self.start, self.complete = root, path, time.time(), True
        self.lists, self.states = {}, {}
        with suppress(OSError, ValueError, KeyError, TypeError):  # what is damaged is made anew
            kept = json.loads(path.read_bytes())
            if all(state(os.path.join(root, folder)) == was for folder, was in kept['states'].items()):
                self.lists, self.states = kept['lists'], kept['states']
        self.known = len(self.lists)

    def walk(self, folder, passed, recursive=True) -> Iterator[tuple[str, bool]]:
        """As :func:`cae_mm.disk.walk`."""
        below = os.path.relpath(folder, self.root)
        key = f'{below}{os.sep}' * recursive or below
        if key not in self.lists:
            found = [*walk(folder, passed, recursive)]
            self.lists[key] = [[name for name, is_folder in found if is_folder is kind]
                               for kind in (False, True)]
            entered = ['', *self.lists[key][True]] if recursive else ['']
            self.states.update((name, state(os.path.join(self.root, name))) for name in (
                os.path.normpath(os.path.join(below, name)) for name in entered))
            self.complete &= not passed  # what a link leads to may change elsewhere
        for kind in (False, True):
            yield from ((name, kind) for name in self.lists[key][kind])

    def keep(self):
        """Write them to the file, if a later look at the folders can tell whether they still hold."""
        if not self.complete or len(self.lists) == self.known:
            return
        with open('/proc/self/mountinfo', encoding='utf-8', errors='replace') as file:
            mounts = [line.split() for line in file]
        told = {mount[2] for mount in mounts if mount[mount.index('-') + 1] in TOLD_BY}
        if all(device in told and changed / 1e9 < self.start - RECENT
               for device, _, changed in self.states.values()):
            write_atomically(json.dumps(dict(lists=self.lists, states=self.states)).encode(), self.path)


def state(folder: str) -> list:
    """Device, inode and change time of a folder, which changes with each file in it and cannot be set."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # opened, as NFS asks its server then
    try:
        status = os.fstat(handle)
    finally:
        os.close(handle)
    return [f'{os.major(status.st_dev)}:{os.minor(status.st_dev)}', status.st_ino, status.st_ctime_ns]


@contextmanager
def kept_lists(root: str) -> Iterator[None]:
    """List folders below ``root`` on a local disk once: those who come later read what the first has found.

    The lists are in ``cae_mm/lists`` of ``$XDG_CACHE_HOME`` or ``~/.cache``. They are taken from there as
    long as each folder in them, opened again, has the inode and the change time that it had. They are not
    kept where that may not tell of all changes: with links that lead nowhere or back and other things that
    were passed by, in folders that have changed within the minute before, and on file systems that are not
    in ``TOLD_BY``. Where they cannot be written, the log says so.
    """
    folder = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache', 'cae_mm/lists').expanduser()
    name = hashlib.blake2b(os.fsencode(os.path.realpath(root)), digest_size=8).hexdigest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / f'{name}.lock', 'ab')
        fcntl.flock(file, fcntl.LOCK_EX)
    except (OSError, NameError) as error:
        print_log(f'{root}: the list of files is not kept for the next start: {error}', 'current')
        yield
        return
    with file:
        lists = FileLists(root, folder / f'{name}.json')
        RegularFiles.walk = staticmethod(lists.walk)
        try:
            yield
        finally:
            RegularFiles.walk = staticmethod(walk)
        try:
            lists.keep()
        except OSError as error:
            print_log(f'{root}: the list of files is not kept for the next start: {error}', 'current',
                      logging.WARNING)
