#!/usr/bin/env python
"""PyTorch's torchrun, which says at the end, in one line, what was wrong, and ends with that exit code."""
import sys

from terminal import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args
from torch.distributed.run import run as launch


def main() -> None:
    """Start the processes and wait for them."""
    try:
        launch(parse_args(sys.argv[1:]))
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        message = failure.message
        if isinstance(message, dict):
            print(message['message'], file=sys.stderr)
        else:
            print(f'cae_mm: rank {rank} failed (exit code {failure.exitcode}): {message}', file=sys.stderr)
        sys.exit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode)


if __name__ == '__main__':
    run(main)
