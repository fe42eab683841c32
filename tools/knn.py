"""Classify a labelled folder by the nearest neighbours of an encoder's features."""
from cae_mm.evaluation import protocol


def main() -> None:
    """Measure as the command line says."""
    parser = protocol.make_parser(__doc__)
    parser.add_argument('--k', type=int, nargs='+', default=[10, 20], help='numbers of neighbours')
    args = parser.parse_args()
    protocol.run(args, k=args.k)


if __name__ == '__main__':
    main()
