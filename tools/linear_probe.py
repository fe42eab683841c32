#!/usr/bin/env python
"""Fit a linear classifier on an encoder's features of a labelled folder, in seconds."""
from cae_mm.engine import launch
from cae_mm.evaluation import protocol


def main() -> None:
    """Measure as the command line says."""
    protocol.run(protocol.make_parser(__doc__).parse_args(), probe=True)
    launch.end_processes()


if __name__ == '__main__':
    main()
