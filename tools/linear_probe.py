#!/usr/bin/env python
"""Fit a linear classifier on an encoder's features of a labelled folder, in seconds."""
import argparse

from options import add_evaluation_options


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_evaluation_options(parser)
    args = parser.parse_args()

    from cae_mm.engine import launch
    from cae_mm.evaluation import protocol
    protocol.run(args, probe=True)
    launch.end_processes()


if __name__ == '__main__':
    main()
