#!/usr/bin/env python
"""Draw the boxes and masks, or the segments, that a trained model finds in your own pictures."""
import argparse
import os
import sys
from pathlib import Path

from options import add_config_options
from terminal import Parser, number, run


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(description=__doc__)
    add_config_options(parser)
    parser.add_argument('checkpoint', help='checkpoint of the whole model; it also names the classes')
    parser.add_argument('--images', nargs='+', type=Path, required=True, help='files or folders')
    parser.add_argument('--out', type=Path, required=True,
                        help='picture to write, or the folder for several, as PNG')
    parser.add_argument('--score-thr', type=number(float, 0, 1), default=0.3,
                        help='leave out objects with a lower score')
    return parser.parse_args()


def choose_targets(images: list[Path], out: Path) -> dict[Path, Path]:
    """Where each picture is drawn: ``out`` itself, or below it as its place among the pictures.

    Raises:
        FileNotFoundError: when a path does not exist, or no picture is there.
        ValueError: when one file is named for several pictures, or a picture would be overwritten.
    """
    from cae_mm.disk import SUFFIXES
    from cae_mm.visualization import choose_images
    for path in images:
        if not path.exists():
            raise FileNotFoundError(f'--images {path}: there is no such picture or folder')
    pictures = choose_images(images, sys.maxsize)
    if out.suffix.lower() in SUFFIXES and not out.is_dir():
        if len(pictures) > 1:
            raise ValueError(f'--out {out} is one file for {len(pictures)} pictures: name a folder')
        targets = {pictures[0]: out}
    else:
        root, targets = os.path.commonpath([path.absolute().parent for path in pictures]), {}
        for path in pictures:
            target = out / path.absolute().relative_to(root)
            other = target.with_suffix('.png')
            targets[path] = target.with_name(f'{target.name}.png') if other in targets.values() else other
    for path, target in targets.items():
        if target.exists() and target.samefile(path):
            raise ValueError(f'--out {out}: {path} would be overwritten: name another folder')
    return targets


def main() -> None:
    """Draw as the command line says."""
    args = parse_args()

    from cae_mm.disk import printable
    from cae_mm.engine import launch
    from cae_mm.evaluation.progress import progress_bar
    from cae_mm.transforms import LoadImageFromFile
    from cae_mm.visualization import DensePredictor
    targets = choose_targets(args.images, args.out)
    predict = DensePredictor(launch.load_config(args), args.checkpoint)
    progress = progress_bar('drawing', len(targets), 'pictures', show=len(targets) > 1)
    for path, target in targets.items():
        image = LoadImageFromFile()(dict(img_path=str(path)))['img']
        sample = predict(image)
        predict.draw(image, sample, target, args.score_thr)
        found = predict.found(sample, args.score_thr).items()
        number = '{:.0f} {}' if predict.scope == 'mmdet' else '{:.1%} {}'
        shares = ', '.join(number.format(share, name) for name, share in found)
        progress.write(printable(f'{target}: {shares or "nothing"}'))
        progress.update()
    progress.close()


if __name__ == '__main__':
    run(main)
