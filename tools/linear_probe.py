#!/usr/bin/env python
"""Fit a linear classifier on an encoder's features of a labelled folder, in seconds."""
from options import add_evaluation_options
from terminal import Parser, run


def main() -> None:
    """Measure as the command line says."""
    parser = Parser(description=__doc__)
    add_evaluation_options(parser)
    args = parser.parse_args()

    from cae_mm.evaluation import protocol
    protocol.run(args, probe=True)


if __name__ == '__main__':
    run(main)
