#!/usr/bin/env python
"""Classify a labelled folder by the nearest neighbours of an encoder's features."""
import argparse

from options import add_evaluation_options


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_evaluation_options(parser)
    parser.add_argument('--k', type=int, nargs='+', default=[10, 20], help='numbers of neighbours')
    parser.add_argument('--linear-probe', action='store_true', help='fit a linear classifier too')
    args = parser.parse_args()

    from cae_mm.engine import launch
    from cae_mm.evaluation import protocol
    protocol.run(args, k=args.k, probe=args.linear_probe)
    launch.end_processes()


if __name__ == '__main__':
    main()
