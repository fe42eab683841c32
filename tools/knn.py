#!/usr/bin/env python
"""Classify a labelled folder by the nearest neighbours of an encoder's features."""
from options import add_evaluation_options
from terminal import POSITIVE, Parser, run


def main() -> None:
    """Measure as the command line says."""
    parser = Parser(description=__doc__)
    add_evaluation_options(parser)
    parser.add_argument('--k', type=POSITIVE, nargs='+', default=[10, 20], help='numbers of neighbours')
    parser.add_argument('--linear-probe', action='store_true', help='fit a linear classifier too')
    args = parser.parse_args()

    from cae_mm.evaluation import protocol
    protocol.run(args, k=args.k, probe=args.linear_probe)


if __name__ == '__main__':
    run(main)
