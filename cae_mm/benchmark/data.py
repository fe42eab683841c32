"""The data of a benchmark, and how they are told from others."""
import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cae_mm.disk import SUFFIXES, walk


@dataclass(frozen=True)
class Data:
    """A folder of data, and what it holds."""

    folder: Path

    @cached_property
    def files(self) -> list[str]:
        """Names of the pictures, annotations and lists."""
        return sorted(name for name, is_folder in walk(self.folder, {})
                      if not is_folder and name.lower().endswith((*SUFFIXES, '.json', '.txt')))

    @cached_property
    def fingerprint(self) -> str:
        """Number of its files, and the SHA-256 of their names and sizes."""
        listed = hashlib.sha256()
        for name in self.files:
            listed.update(os.fsencode(f'{name} {os.stat(self.folder / name).st_size}\n'))
        return f'{len(self.files)} files {listed.hexdigest()[:16]}'

    def images(self, part: str) -> int:
        """The number of pictures of a part, train or val, in any of the layouts."""
        return sum(name.lower().endswith(SUFFIXES) and not name.startswith('annotations')
                   and any(folder.startswith(part) for folder in Path(name).parts[:-1])
                   for name in self.files)

    @property
    def validation(self) -> Path | None:
        """The pictures that detectors and segmentors are measured on, in COCO's or ADE20K's layout."""
        found = (self.folder / name for name in ('val2017', 'images/validation'))
        annotated = (self.folder / 'annotations').is_dir()
        return next(filter(Path.is_dir, found), None) if annotated else None

    @cached_property
    def classes(self) -> int:
        """The number of folders of a class."""
        return sum(path.is_dir() for path in (self.folder / 'train').glob('*'))
