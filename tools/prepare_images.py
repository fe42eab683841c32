#!/usr/bin/env python
"""Copy a folder of any images to small ones, with a train and a val part where it has classes.

SOURCE may have train/CLASS/* and val/CLASS/*, or folders of classes (a fifth of each becomes val), or
images at any depth without classes (all become train, and nothing is there to measure k-NN on).
"""
import argparse
from pathlib import Path


def main() -> None:
    """Copy as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, help='folder of images')
    parser.add_argument('out', type=Path, help='folder to write')
    parser.add_argument('--side', type=int, default=96, help='of the shorter side, in pixels')
    parser.add_argument('--max-images', type=int, default=20000, help='the share of each class stays')
    parser.add_argument('--done', type=Path, help='file to write at the end')
    args = parser.parse_args()

    from cae_mm.datasets.prepare import prepare
    counts = prepare(args.source, args.out, args.side, args.max_images)
    summary = ''.join(f'{name:<8} {count:>6}\n' for name, count in counts.items())
    print(summary, end='')
    if args.done:
        args.done.write_text(summary)


if __name__ == '__main__':
    main()
