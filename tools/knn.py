#!/usr/bin/env python
"""Classify a labelled folder by the nearest neighbours of an encoder's features."""
from cae_mm.engine import launch
from cae_mm.evaluation import protocol


def main() -> None:
    """Measure as the command line says."""
    parser = protocol.make_parser(__doc__)
    parser.add_argument('--k', type=int, nargs='+', default=[10, 20], help='numbers of neighbours')
    parser.add_argument('--linear-probe', action='store_true', help='fit a linear classifier too')
    args = parser.parse_args()
    protocol.run(args, k=args.k, probe=args.linear_probe)
    launch.end_processes()


if __name__ == '__main__':
    main()
