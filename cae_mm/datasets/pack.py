"""Packing images into tar files, and the index of the images in tar files of any origin."""
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections import Counter
from functools import partial
from pathlib import Path

import fsspec
import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from cae_mm.atomic import replacing, write_atomically
from cae_mm.disk import SUFFIXES, list_images, log_used, named, printable, read_regular, suffix_of
from cae_mm.transforms.loading import MAX_BYTES, decode_rgb, explain

from .reproducible import PARTS
from .shards import BLOCK, FACTS, NAMES, RECORD, RECORDS, ShardIndex
from .storage import Storage

QUALITY = 90  # of images that are made smaller
PLAN, BAD, BEFORE = 'packing.json', 'bad_files.json', 'before'


def pack(source: str, out: Path, short_side: int | None, shard_bytes: int, num_workers: int,
         pixels: bool = False) -> list[str]:
    """Pack images into tar files with an index, going on where an earlier call ended.

    Args:
        source (str): folder of images, text file with their paths, or folder or URL of tar files, which are
            only indexed, where they are, without ``short_side`` and ``pixels``.
        out (Path): folder for the result.
        short_side (int, optional): pixels; images whose shorter side is longer are made smaller.
        shard_bytes (int): bytes of images, as they are in ``source``, for a tar file.
        num_workers (int): processes.
        pixels (bool): whether images are stored decoded, as PPM.

    Returns:
        list[str]: what was done, for the reader.

    Raises:
        FileNotFoundError: when there are no images.
        ValueError: when ``out`` has what another call packed, or a tar file cannot be read.
    """
    folder, names, labels = Path(source), [], None
    if '://' not in source and folder.is_dir():
        for train, val in PARTS:
            if (folder / train).is_dir() and (folder / val).is_dir():
                raise ValueError(f'{source} holds {train}/ and {val}/: pack each into a folder of its own')
        names = list_images(folder)
    elif '://' not in source:
        names = [*filter(None, read_regular(folder).decode('utf-8', 'surrogateescape').splitlines())]
        folder = folder.parent
    read, paths = partial(read_image, folder, names), [folder / name for name in names]
    sizes = np.array([os.path.getsize(path) if path.is_file() else 0 for path in paths], int)
    if not names:
        tars = sorted(name for name in Storage(source, out, 0).sizes() if name.endswith('.tar'))
        target = out / BEFORE if short_side or pixels else out
        work = Shards(source if '://' in source else str(folder.resolve()), tars)
        number, *_ = write_index(work, target, num_workers)
        if target == out:
            return [f'{number:,} images in {len(tars)} tar files of {source}, whose index is in {out}']
        index = ShardIndex(target)
        read, names, sizes = index.read, index.names(), index.records['size'].astype(int)
        labels = None if index.classes else index.records['label'].tolist()
    ends = [*np.flatnonzero(np.diff(sizes.cumsum() // shard_bytes)) + 1, len(names)]
    options = f'{short_side} {shard_bytes}{" pixels" if pixels else ""}'
    plan = '\n'.join([options, *map('{} {}'.format, names, sizes)])
    plan = hashlib.blake2b(plan.encode('utf-8', 'surrogateescape')).hexdigest().encode()
    if (out / PLAN).exists() and read_regular(out / PLAN) != plan:
        raise ValueError(f'{out} has shards of other images or options: remove it, or name another folder')
    write_atomically(plan, out / PLAN)
    tars = [f'shard-{number:06}.tar' for number in range(len(ends))]
    parts = [range(*part) for part in zip([0, *ends[:-1]], ends, strict=True)]
    work = Shards(str(out.resolve()), tars, parts, names, sizes, read, labels, short_side, pixels)
    number, packed, bad = write_index(work, out, num_workers)
    shutil.rmtree(out / BEFORE, ignore_errors=True)
    lines = [f'{number:,} images in {len(tars)} tar files: {packed:,} bytes, '
             f'{packed / sizes.sum():.1%} of the {sizes.sum():,} of {source}']
    if bad:
        write_atomically(printable(json.dumps(bad, indent=1, ensure_ascii=False)).encode(), out / BAD)
        first = named(f'{name} ({why})' for name, why in bad.items())
        lines.append(f'left out, as they cannot be read: {len(bad)}, all of them in {out / BAD}: {first}')
    return lines


def read_image(folder: Path, names: list[str], number: int, most: int) -> bytes:
    """A file, by its number among the names."""
    return read_regular(folder / names[number], most)


class Shards(Dataset):
    """The work: item i packs tar file i, unless it is there, and gives what :func:`scan` finds in it.

    Args:
        folder (str): path or URL of the tar files.
        tars (list[str]): their names.
        parts (list[range], optional): the numbers of the images to pack into each.
        names, sizes, read, labels, short_side, pixels: of all images; see :func:`pack`.
    """

    def __init__(self, folder, tars, parts=None, names=(), sizes=(), read=None, labels=None,
                 short_side=None, pixels=False):
        self.folder, self.tars, self.parts = folder, tars, parts or [()] * len(tars)
        self.names, self.sizes, self.read = names, sizes, read
        self.labels, self.short_side, self.pixels = labels, short_side, pixels

    def __len__(self):
        return len(self.tars)

    def __getitem__(self, item):
        path, numbers, bad = Path(self.folder, self.tars[item]), self.parts[item], {}
        if numbers and not path.exists():
            size = sum(self.sizes[number] for number in numbers)
            with replacing(path, size) as temporary, tarfile.open(temporary, 'w') as tar:
                for number in numbers:
                    content, _ = self.content(number)
                    members = {self.names[number]: content} if content else {}
                    if content and self.labels:  # as WebDataset has it
                        members[f'{sample_of(self.names[number])}.cls'] = b'%d' % self.labels[number]
                    for name, content in members.items():
                        member = tarfile.TarInfo(name.lstrip('/'))
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
        found = scan(self.folder, self.tars[item])
        if len(found['records']) < len(numbers):
            bad = {self.names[number]: why for number in numbers if (why := self.content(number)[1])}
        return dict(found, bad=bad)

    def content(self, number):
        """What is packed of an image, or b'' and why it cannot be read."""
        content = b''
        try:
            content = self.read(number, MAX_BYTES)
            pixels = decode_rgb(content)
        except Exception as error:  # decoders raise nearly every type on a damaged file
            return b'', explain(error, content)
        scale = (self.short_side or np.inf) / min(pixels.shape[:2])
        if scale < 1 or self.pixels:
            image, buffer = Image.fromarray(pixels), io.BytesIO()
            if scale < 1:
                image = image.resize([round(side * scale) for side in image.size], Image.Resampling.LANCZOS)
            image.save(buffer, 'PPM' if self.pixels else 'JPEG', quality=QUALITY)
            content = buffer.getvalue()
        return content, ''


def sample_of(name: str) -> str:
    """What the members of a sample have in common in WebDataset: the name up to its first dot."""
    folder, base = os.path.split(name)
    return os.path.join(folder, base.partition('.')[0])


def scan(folder: str, tar: str) -> dict:
    """Find the images in a tar file: folder or URL, and its name there.

    Returns:
        dict: ``records``, (images,) of ``RECORD``; their ``names``; ``folders``, the first ones of the
        names, of which the labels are the numbers, None where .cls members have labels; ``others``, the
        suffixes of what is no image, counted.

    Raises:
        ValueError: when it is no uncompressed tar file, or ends early.
    """
    places, labels, others = {}, {}, Counter()
    try:
        with fsspec.open(f'{folder}/{tar}', 'rb') as file, tarfile.open(fileobj=file, mode='r:') as members:
            while (member := members.next()) is not None:
                members.members.clear()  # tarfile would keep them all
                name = member.name.removeprefix('./')
                if name.endswith('.cls'):
                    labels[name[:-4]] = int(members.extractfile(member).read())
                elif not member.isreg() or member.issparse() or os.path.basename(name).startswith('.') or (
                        not name.lower().endswith(SUFFIXES)):
                    others[suffix_of(name)] += not member.isdir()
                else:
                    places[name] = member.offset_data // BLOCK, min(member.size, 2**32 - 1)
    except (tarfile.TarError, ValueError) as error:
        raise ValueError(f'{folder}/{tar} is no whole tar file ({error}): copy it again, or unpack it if '
                         'it is compressed') from error
    tops = [name.partition('/')[0] if '/' in name else '' for name in places]
    folders = None if labels else sorted({*tops})
    records = np.zeros(len(places), RECORD)
    records['block'], records['size'] = np.array([*places.values()], int).reshape(-1, 2).T
    names = [f'{name}\n'.encode('utf-8', 'surrogateescape') for name in places]
    records['name'] = np.cumsum([*map(len, names)])
    records['label'] = np.searchsorted(folders, tops) if folders else [
        labels.get(sample_of(name), -1) for name in places]
    return dict(records=records, names=b''.join(names), folders=folders, others=others)


def write_index(shards: Shards, out: Path, num_workers: int) -> tuple[int, int, dict[str, str]]:
    """Do the work, and write what :class:`ShardIndex` reads.

    Returns:
        tuple[int, int, dict[str, str]]: how many images, of how many bytes, and why others cannot be read.

    Raises:
        FileNotFoundError: when there is no image.
    """
    loader = DataLoader(shards, batch_size=None, num_workers=num_workers, collate_fn=lambda item: item)
    found = list(tqdm(loader, 'tar files', disable=None))
    bad = {name: why for item in found for name, why in item['bad'].items()}
    others = sum((item['others'] for item in found), Counter())
    # First folders are classes, where each image has one and none a label of its own.
    tops, ends = {top for item in found for top in item['folders'] or ['']}, 0
    classes = None if '' in tops else sorted(tops)
    for item in found:
        records = item['records']
        records['name'] += ends
        ends += len(item['names'])
        if item['folders']:
            place = np.searchsorted(classes, item['folders']) if classes else np.array([-1] * len(tops))
            records['label'] = place[records['label']]
    records = np.concatenate([item['records'] for item in found] or [np.zeros(0, RECORD)])
    if not len(records):
        raise FileNotFoundError(f'{shards.folder} has no images, nor .tar files with such (looked for '
                                f'{" ".join(SUFFIXES)}): {named(bad.values()) or "no name fits"}')
    write_atomically(records.tobytes(), out / RECORDS)
    write_atomically(b''.join(item['names'] for item in found), out / NAMES)
    sizes = Storage(shards.folder, out, 0).sizes()
    tars = [[tar, sizes[tar], len(item['records'])] for tar, item in zip(shards.tars, found, strict=True)]
    folder = '' if shards.folder == str(out.resolve()) else shards.folder
    text = json.dumps(dict(folder=folder, classes=classes, shards=tars))
    write_atomically(printable(text).encode(), out / FACTS)  # last: without it there is no index
    log_used(shards.folder, len(records), others)
    return len(records), int(records['size'].sum(dtype=int)), bad
