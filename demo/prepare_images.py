#!/usr/bin/env python
"""Copy a folder of any images to small ones, with a train and a val part where it has classes.

    python demo/prepare_images.py SOURCE OUT

SOURCE may have train/CLASS/* and val/CLASS/*, or folders of classes (a fifth of each becomes val), or
images at any depth without classes (all become train, and nothing is there to measure k-NN on).
"""
import hashlib
import os
import sys
from pathlib import Path

from PIL import Image

from cae_mm.disk import SUFFIXES, list_images, named
from cae_mm.transforms import LoadRGBImage

sys.path.append(str(Path(__file__).resolve().parents[1] / 'tools'))
from terminal import POSITIVE, Parser, run  # noqa: E402

UNLABELLED = 'unlabelled'  # the folder of images without classes


def find_images(folder: Path) -> list[Path]:
    """List images at any depth, in an order that depends on their names alone but mixes them."""
    names = sorted(list_images(folder), key=lambda name: hashlib.sha256(os.fsencode(name)).digest())
    return [folder / name for name in names]


def find_classes(folder: Path, least: int) -> dict[str, list[Path]]:
    """Images of each sub-folder that has at least so many; {} with fewer than two such folders."""
    folders = sorted(path for path in folder.iterdir() if path.is_dir())
    classes = {path.name: find_images(path) for path in folders}
    classes = {name: files for name, files in classes.items() if len(files) >= least}
    return classes if len(classes) > 1 else {}


def split(source: Path, val_share: float) -> dict[str, dict[str, list[Path]]]:
    """Assign the images of a folder: ``{'train': {class: files}, 'val': {class: files}}``.

    Without classes only ``train`` is there; of a ``source`` with train/ and val/, the former.

    Raises:
        ValueError: when train/ and val/ have different classes.
    """
    if (source / 'train').is_dir() and (source / 'val').is_dir():
        parts = {part: find_classes(source / part, 1) for part in ('train', 'val')}
        if differ := sorted(parts['train'].keys() ^ parts['val'].keys()):
            raise ValueError(f'{source}: train and val have different classes: {", ".join(differ)}')
        if parts['train']:
            return parts
        source = source / 'train'
    classes = find_classes(source, 2)
    if not classes:
        return {'train': {UNLABELLED: find_images(source)}}
    cuts = {name: max(1, round(val_share * len(files))) for name, files in classes.items()}
    return {'train': {name: files[cuts[name]:] for name, files in classes.items()},
            'val': {name: files[:cuts[name]] for name, files in classes.items()}}


def shrink(path: Path, target: Path, side: int) -> str | None:
    """Write a JPEG whose shorter side is at most ``side``; return why the file cannot be read."""
    results = dict(img_path=str(path))
    if LoadRGBImage()(results) is None:
        return results['load_error']
    image = Image.fromarray(results['img'])
    scale = side / min(image.size)
    if scale < 1:
        image = image.resize([max(1, round(scale * length)) for length in image.size],
                             Image.Resampling.BICUBIC, reducing_gap=3)
    target.parent.mkdir(parents=True, exist_ok=True)
    image.save(target, quality=95)


def prepare(source: Path, out: Path, side: int = 96, max_images: int = 20000,
            val_share: float = 0.2) -> dict[str, int]:
    """Write ``out/train/CLASS/*.jpg`` and, with classes, ``out/val/CLASS/*.jpg``.

    Args:
        source (Path): folder of images.
        out (Path): folder to write.
        side (int): largest length of the shorter side, in pixels.
        max_images (int): take at most so many; the share of each class stays.
        val_share (float): part of each class for validation where ``source`` has no val.

    Returns:
        dict[str, int]: images written per part, and number of classes.

    Raises:
        FileNotFoundError: without such a folder, or images in it.
        ValueError: see ``split``.
        RuntimeError: when more than a tenth of the files cannot be read.
    """
    if not source.is_dir():
        raise FileNotFoundError(f'there is no folder {source}')
    parts = split(source, val_share)
    total = sum(len(files) for classes in parts.values() for files in classes.values())
    if not total:
        raise FileNotFoundError(f'{source} has no images ({", ".join(SUFFIXES)}) at any depth')
    share, bad, counts = min(1, max_images / total), {}, {}
    for part, classes in parts.items():
        for name, files in classes.items():
            for index, path in enumerate(files[:max(1, round(share * len(files)))]):
                problem = shrink(path, out / part / name / f'{index:06d}.jpg', side)
                if problem:
                    bad[path] = problem
                else:
                    counts[part] = counts.get(part, 0) + 1
    first = named(f'{path} ({reason})' for path, reason in bad.items())
    if 10 * len(bad) > len(bad) + sum(counts.values()):
        raise RuntimeError(f'{len(bad)} of {total} images are unreadable: {first}')
    if bad:
        print(f'skipped {len(bad)} unreadable images: {first}')
    return counts | {'classes': len(parts['train']) if 'val' in parts else 0}


def main() -> None:
    """Copy as the command line says."""
    parser = Parser(description=__doc__.split('\n')[0])
    parser.add_argument('source', type=Path, help='folder of images')
    parser.add_argument('out', type=Path, help='folder to write')
    parser.add_argument('--side', type=POSITIVE, default=96, help='of the shorter side, in pixels')
    parser.add_argument('--max-images', type=POSITIVE, default=20000, help='the share of each class stays')
    args = parser.parse_args()
    for name, count in prepare(args.source, args.out, args.side, args.max_images).items():
        print(f'{name:<8} {count:>6}')


if __name__ == '__main__':
    run(main)
