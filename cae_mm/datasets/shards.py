"""Images in tar files, by an index that takes 20 bytes for each."""
import hashlib
import json
from functools import cached_property, partial
from pathlib import Path

import fsspec
import numpy as np
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS

from cae_mm.disk import read_regular

from .storage import Storage

# Of an image: where its file begins, in the blocks of tar files; its bytes; its class, -1 without one; and
# where its name ends, with a line feed, among all names.
RECORD = np.dtype([('block', '<u4'), ('size', '<u4'), ('label', '<i4'), ('name', '<u8')])
BLOCK = 512  # bytes
FACTS, RECORDS, NAMES = 'shards.json', 'shards.index', 'shards.names'


class ShardIndex:
    """The index of ``tools/make_shards.py``, which is mapped into memory.

    ``shards.json`` has the folder or URL of the tar files ('': its own), their names, bytes and numbers of
    images, and the names of classes; ``shards.index`` a ``RECORD`` of each image, tar file by tar file;
    ``shards.names`` their names.

    Args:
        folder (str): path or URL of a folder with these.
        cache_dir (str), cache_bytes (int): see :class:`Storage`.

    Raises:
        FileNotFoundError: when there is no index, or not all tar files.
        ValueError: when the files do not belong together.
    """

    def __init__(self, folder, cache_dir='~/.cache/cae_mm/shards', cache_bytes=10**11):
        folder = str(folder).rstrip('/')
        store, path = fsspec.url_to_fs(f'{folder}/{FACTS}')
        if not store.exists(path):
            raise FileNotFoundError(f'{folder} has no {FACTS}, which tools/make_shards.py makes')
        text = store.cat_file(path)
        try:
            facts = json.loads(text)
            self.classes, place = facts['classes'], facts['folder'] or folder
            self.tars, self.bytes, self.sizes = zip(*facts['shards'], strict=True)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{folder}/{FACTS} is no index of shards ({error!r}): make it anew') from error
        self._ends = np.cumsum(self.sizes)
        own = hashlib.blake2b(f'{place} {text}'.encode(), digest_size=8).hexdigest()
        cache_dir = Path(cache_dir).expanduser() / own
        index, self.files = (Storage(part, cache_dir, cache_bytes) for part in (folder, place))
        self._records, self._names = index.keep(RECORDS), index.keep(NAMES)
        expected = len(self.records), Path(self._names).stat().st_size
        if (self._ends[-1], self.records['name'][-1]) != expected:
            raise ValueError(f'{folder}: {FACTS}, {RECORDS} and {NAMES} do not fit: copy all three again')
        there = self.files.sizes()
        for tar, size in zip(self.tars, self.bytes, strict=True):
            if there.get(tar) != size or '..' in tar.split('/'):  # its name in the cache is the same
                raise FileNotFoundError(
                    f'{self.files.path(tar)} has {there.get(tar, "no")} bytes, not the {size} of the index '
                    f'in {folder}: copy it again, or make the index anew')

    @cached_property
    def records(self):
        """(images,) of ``RECORD``, which all processes share."""
        return np.memmap(self._records, RECORD, 'r')

    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key != 'records'}

    def names(self):
        """The names of all images, list[str]."""
        return read_regular(self._names).decode('utf-8', 'surrogateescape').split('\n')[:-1]

    def path(self, number):
        """Where an image is, with its name in the tar file."""
        start = int(self.records['name'][number - 1]) if number else 0
        name = read_regular(self._names, part=(start, int(self.records['name'][number]) - start - 1))
        return f'{self.files.path(self._tar(number))}/{name.decode("utf-8", "surrogateescape")}'

    def read(self, number, most):
        """The file of an image; OSError for more than ``most`` bytes, or as by :class:`Storage`."""
        block, size = (int(self.records[key][number]) for key in ('block', 'size'))
        if size > most:
            raise OSError(f'it has {size:,} bytes, more than the {most:,} that are read')
        return self.files.read(self._tar(number), block * BLOCK, size)

    def _tar(self, number):
        return self.tars[self._ends.searchsorted(number, 'right')]


@DATASETS.register_module()
class ShardedImages(BaseDataset):
    """The images in shards, in the order of the folder that was packed.

    Args:
        data_root (str): path or URL of the index.
        pipeline (list[dict]): begins with LoadRGBImage, or LoadImageFromFile as ours is.
        with_label (bool): whether samples have classes.
        test_mode (bool): see mmengine's BaseDataset.
        **cache: ``cache_dir`` and ``cache_bytes``, see :class:`Storage`.

    Raises:
        FileNotFoundError, ValueError: see :class:`ShardIndex`; ValueError when an image has no class.
    """

    def __init__(self, data_root, pipeline=(), with_label=True, test_mode=False, **cache):
        self.index, self.with_label = ShardIndex(data_root, **cache), with_label
        if with_label and (self.index.records['label'] < 0).any():
            raise ValueError(f'images in {data_root} have no class: with_label=False')
        super().__init__('', data_prefix=data_root, pipeline=pipeline, test_mode=test_mode, lazy_init=True,
                         classes=self.index.classes if with_label else None)
        self._fully_initialized = True

    def __len__(self):
        return len(self.index.records)

    def get_data_info(self, idx):
        """Where an image is, what reads it, and its class."""
        idx = range(len(self))[idx]
        label = dict(gt_label=int(self.index.records['label'][idx])) if self.with_label else {}
        return dict(label, sample_idx=idx, img_path=self.index.path(idx),
                    read_bytes=partial(self.index.read, idx))

    def get_gt_labels(self):
        """The classes of all images, (images,)."""
        return np.array(self.index.records['label'])

    @property
    def shard_sizes(self):
        """Number of images in each shard."""
        return self.index.sizes

    def fetch(self, shards, together):
        """Begin to fetch shards, by their numbers, that will be read soon: see :class:`Storage`.

        Raises:
            ValueError: when the cache cannot hold so many ``together``.
        """
        files, needed = self.index.files, sum(sorted(self.index.bytes)[-together:])
        if files.remote and needed > files.cache_bytes:
            raise ValueError(f'{together} shards, those of a window and the next, have {needed:,} bytes, '
                             f'more than cache_bytes={files.cache_bytes}: raise it, or lower window')
        files.fetch({self.index.tars[shard]: self.index.bytes[shard] for shard in shards})
