#!/usr/bin/env python
"""Pack images into tar files of about one size, with an index; or make the index of tar files."""
import os
from pathlib import Path

from terminal import NATURAL, POSITIVE, Parser, run


def main() -> None:
    """Pack as the command line says."""
    parser = Parser(description=__doc__)
    parser.add_argument('source', help='folder of images, at any depth; text file with the path of one in '
                        'each line; or folder or URL of tar files, which are only indexed where they are')
    parser.add_argument('out', type=Path, help='folder for tar files and index')
    parser.add_argument('--short-side', type=POSITIVE, metavar='PIXELS', help='make images smaller whose '
                        'shorter side is longer; those of tar files are then packed anew')
    parser.add_argument('--pixels', action='store_true', help='store images decoded, 3 bytes a pixel: read '
                        'in less time, from several times the space')
    parser.add_argument('--shard-size', type=POSITIVE, default=1000, metavar='MB', help='images in a tar '
                        'file, in 10**6 bytes as they are in the source, default: 1000')
    parser.add_argument('--num-workers', type=NATURAL, default=os.cpu_count(),
                        help='processes, default: one for each core')
    args = parser.parse_args()

    from cae_mm.datasets.pack import pack
    print('\n'.join(pack(args.source, args.out, args.short_side, args.shard_size * 10**6,
                         args.num_workers, args.pixels)))


if __name__ == '__main__':
    run(main)
