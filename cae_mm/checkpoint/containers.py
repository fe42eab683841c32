"""The files that hold tensors, described before they are read: torch's two formats and safetensors."""
import io
import json
import os
import struct
import weakref
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from cae_mm.checkpoint.inert import DTYPES, MOST_TENSORS, Stored, dict_of, plain, row_major
from cae_mm.checkpoint.unpickle import unpickle
from cae_mm.seal import CHANGED, checksum_of

LEGACY = 0x1950a86a20f9469cfc6c, 1001  # the first values in torch's format before 1.6
LONGEST_HEADER = 2**25  # bytes, of a safetensors file
SAFETENSORS = dict(F64='float64', F32='float32', F16='float16', BF16='bfloat16', I64='int64', I32='int32',
                   I16='int16', I8='int8', U8='uint8', BOOL='bool', F8_E4M3='float8_e4m3fn',
                   F8_E5M2='float8_e5m2')


def describe(path: str | Path | BinaryIO) -> Any:
    """The content of a checkpoint file or of an open one, with a ``Stored``, not yet read, for each tensor.

    An OSError where it cannot be read; a ValueError where it asks for code, is damaged or claims too much.
    """
    file = open(path, 'rb') if isinstance(path, (str, Path)) else path
    zipped, suffix = file.read(4) == b'PK\3\4', Path(getattr(file, 'name', '')).suffix
    kind = _Safetensors if suffix == '.safetensors' else _Zip if zipped else _Legacy
    return kind(file).content


class _Reader:
    """Describes a file, and reads its storages once, when one of their tensors is asked for."""

    def __init__(self, file: BinaryIO):
        self.file, self.size, self.numbers = file, file.seek(0, os.SEEK_END), {}
        weakref.finalize(self, file.close)
        self.content = self.describe()

    def bytes(self, start: int, size: int, what: str, crc: int | None = None) -> tuple[Tensor, int]:
        """Bytes of the file, and their CRC-32, which has to be the given one."""
        if not 0 <= start <= start + size <= self.size:
            raise ValueError(f'{what} ends behind the end of the file, which is truncated or damaged')
        content = torch.empty(size, dtype=torch.uint8)
        self.file.seek(start)
        if self.file.readinto(content.numpy()) != size:
            raise ValueError(f'{what} is truncated')
        found = zlib.crc32(content.numpy())
        if crc not in (None, found):
            raise ValueError(f'{what} is damaged: its checksum is {found:08x}, not {crc:08x}')
        return content, found

    def tensor(self, stored: Stored) -> Tensor:
        """Read one tensor; those that share numbers in the file do so here."""
        key = stored.storage.key
        if key not in self.numbers:
            self.numbers[key] = self.find(key)
        numbers, crc = self.numbers[key]
        tensor = torch.empty(0, dtype=stored.dtype).set_(
            numbers.untyped_storage(), stored.offset, stored.shape, stored.stride)
        if stored.checksum:
            whole = stored.nbytes == len(numbers) and tensor.is_contiguous()
            found = checksum_of(tensor, crc if whole else None)
            if found != stored.checksum:
                raise ValueError(f'its checksum is {found}, not {stored.checksum}. {CHANGED}')
        return tensor


class _Zip(_Reader):
    """torch's format: records that are not compressed, each with a checksum."""

    def describe(self) -> Any:
        try:
            archive = zipfile.ZipFile(self.file)
        except (zipfile.BadZipFile, NotImplementedError, struct.error) as error:
            raise ValueError(f'its zip archive is truncated or damaged ({error})') from error
        self.entries = {entry.filename: entry for entry in archive.infolist()}
        starts = sorted({entry.header_offset for entry in self.entries.values()}) + [archive.start_dir]
        if not len(archive.infolist()) == len(self.entries) == len(starts) - 1 <= 2 * MOST_TENSORS:
            raise ValueError('records of its zip archive overlap or repeat, or are too many')
        self.ends = dict(zip(starts, starts[1:], strict=False))
        # torch leaves them out where torch.serialization.set_crc32_options says so.
        self.checked = any(entry.CRC for entry in self.entries.values())
        roots = [name.removesuffix('data.pkl') for name in self.entries if name.endswith('/data.pkl')]
        if len(roots) != 1:
            raise ValueError('it is a zip archive without the one data.pkl that torch.save writes')
        self.root = roots[0]
        if f'{self.root}byteorder' in self.entries and bytes(self.record('byteorder')[0]) != b'little':
            raise ValueError('it was written by a machine with another order of bytes')
        content = unpickle(io.BytesIO(self.record('data.pkl')[0].numpy()), self.tensor, storages := {})
        for storage in storages.values():
            entry = self.entries.get(f'{self.root}data/{storage.key}')
            if entry is None or entry.file_size < storage.nbytes:
                raise ValueError(f'storage {storage.key} of {storage.numel} numbers has '
                                 f'{entry.file_size if entry else 0} bytes')
        return plain(content, self.size)

    def find(self, key: str) -> tuple[Tensor, int]:
        return self.record(f'data/{key}')

    def record(self, name: str) -> tuple[Tensor, int]:
        entry = self.entries[self.root + name]
        self.file.seek(entry.header_offset)
        header = self.file.read(30)
        start = entry.header_offset + 30 + sum(struct.unpack('<HH', header[26:].rjust(4, b'\0')))
        if entry.compress_type or entry.compress_size != entry.file_size or entry.flag_bits & 1:
            raise ValueError(f'{name} is compressed or encrypted, which torch.save does not do')
        if header[:4] != b'PK\3\4' or start + entry.file_size > self.ends[entry.header_offset]:
            raise ValueError(f'{name} reaches into what follows it: the zip archive is damaged')
        return self.bytes(start, entry.file_size, name, entry.CRC if self.checked else None)


class _Legacy(_Reader):
    """torch's format before 1.6: several pickles, then the storages, without checksums."""

    def describe(self) -> Any:
        self.file.seek(257)
        if self.file.read(5) == b'ustar':
            raise ValueError('it is in the tar format of PyTorch before 0.2, which is not read')
        self.file.seek(0)
        for value in LEGACY:
            if plain(unpickle(self), self.size) != value:
                raise ValueError('it is not what torch.save writes')
        if not unpickle(self)['little_endian']:
            raise ValueError('it was written by a machine with another order of bytes')
        content, keys, self.places = unpickle(self, self.tensor, storages := {}), unpickle(self), {}
        start = self.file.tell()
        for key in keys:
            storage = storages[key]
            self.file.seek(start)
            claimed = self.file.read(8)
            if claimed != struct.pack('<q', storage.numel) or start + 8 + storage.nbytes > self.size:
                raise ValueError(f'storage {key} is truncated or damaged')
            self.places[key] = start + 8, storage.nbytes
            start = sum(self.places[key])
        if self.places.keys() != storages.keys() or start != self.size:
            raise ValueError('its storages are not those that its pickle names')
        return plain(content, self.size)

    def read(self, size: int) -> bytes:  # a claim of terabytes takes no memory
        return self.file.read(min(size, self.size - self.file.tell()))

    def readline(self) -> bytes:
        return self.file.readline()

    def find(self, key: str) -> tuple[Tensor, int]:
        return self.bytes(*self.places[key], f'storage {key}')


class _Safetensors(_Reader):
    """A header of JSON, and the tensors, one behind the other, without checksums."""

    def describe(self) -> Any:
        self.file.seek(0)
        length = int.from_bytes(self.file.read(8), 'little')
        if not length <= min(self.size - 8, LONGEST_HEADER):
            raise ValueError(f'its header of {length} bytes is longer than the file, or than any')
        header, end = json.loads(self.file.read(length), object_pairs_hook=_unique), 0
        meta, self.start = header.pop('__metadata__', {}), 8 + length
        if len(header) > MOST_TENSORS:
            raise ValueError(f'it has more than {MOST_TENSORS} tensors')
        state = {}
        for name, entry in sorted(header.items(), key=lambda item: item[1]['data_offsets']):
            dtype, shape = DTYPES['torch.' + SAFETENSORS[entry['dtype']]], entry['shape']
            stored = row_major(name, dtype, shape, self.tensor)
            if entry['data_offsets'] != [end, end + stored.nbytes]:
                raise ValueError(f'{name}, {stored.nbytes} bytes, is at {entry["data_offsets"]}, not {end}')
            state[name], end = stored, end + stored.nbytes
        if end != self.size - self.start:
            raise ValueError(f'its tensors have {end} bytes, the file {self.size - self.start} for them')
        self.places = {name: entry['data_offsets'] for name, entry in header.items()}
        return dict(state_dict={name: state[name] for name in header}, header=meta)

    def find(self, name: str) -> tuple[Tensor, int]:
        start, end = self.places[name]
        return self.bytes(self.start + start, end - start, name)


def _unique(pairs: list) -> dict:
    if len(content := dict_of(pairs)) != len(pairs):
        raise ValueError('its header repeats a name')
    return content
