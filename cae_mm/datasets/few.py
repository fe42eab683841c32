"""A part of a folder's images: those of a list, or as many of each class."""
from collections import defaultdict
from hashlib import sha256
from pathlib import Path

from cae_mm.disk import named, read_regular


def listed(samples: list, subset: str | Path) -> list:
    """The samples that a file names.

    The usual lists of 1 % and 10 % of ImageNet, those of SimCLR (arXiv 2002.05709), are such files.

    Args:
        samples (list): paths in the folder of the images, or pairs of these and labels.
        subset (str | Path): text file with a line for each: its path in the folder, or its name alone.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it names none, or what is not there once; names them.
    """
    if not Path(subset).is_file():
        raise FileNotFoundError(f'subset={subset}: there is no such file')
    lines = [*filter(None, map(str.strip, read_regular(subset).decode().splitlines()))]
    found, by_name = dict.fromkeys(lines), defaultdict(list)
    for sample in samples:
        path = sample if isinstance(sample, str) else sample[0]
        for name in {path, Path(path).name} & found.keys():
            by_name[name].append(sample)
    if wrong := [f'{name} ({len(by_name[name])} files)' for name in found if len(by_name[name]) != 1]:
        raise ValueError(f'subset={subset}: {len(wrong)} of its {len(found)} names are not of one file: '
                         f'{named(wrong)}. Write those that several classes have as CLASS/NAME')
    chosen = {id(sample) for name in found for sample in by_name[name]}
    if not chosen:
        raise ValueError(f'subset={subset} names no image')
    return [sample for sample in samples if id(sample) in chosen]


def shots_of(samples: list[tuple[str, int]], shots: int, seed: int = 0) -> list[tuple[str, int]]:
    """``shots`` samples of each class, the same for a seed on every machine; more shots keep fewer's.

    Args:
        samples (list[tuple[str, int]]): path in the folder and label of each image.
        shots (int): images of each class.
        seed (int): of the choice, which does not depend on other classes, or on the order of the files.

    Raises:
        ValueError: when a class has fewer images; names it.
    """
    classes = defaultdict(list)
    for path, label in samples:
        classes[label].append((sha256(f'{seed} {path}'.encode(errors='surrogateescape')).digest(), path))
    if few := [f'{Path(paths[0][1]).parts[0]} ({len(paths)})' for paths in classes.values()
               if len(paths) < shots]:
        raise ValueError(f'shots={shots}: fewer images have the classes {named(few)}')
    chosen = {path for paths in classes.values() for _, path in sorted(paths)[:shots]}
    return [sample for sample in samples if sample[0] in chosen]
