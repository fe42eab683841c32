#!/usr/bin/env python
"""PyTorch's torchrun, which says at the end, in one line, what was wrong, and ends with that exit code."""
import signal
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
        message, code = failure.message, failure.exitcode
        if code == -signal.SIGTERM:  # one that was ended here, while it said why, as another had failed
            code = max(other.exitcode for other in error.failures.values())
        if isinstance(message, dict):
            print(message['message'], file=sys.stderr)
        else:
            print(f'cae_mm: rank {rank} failed (exit code {code}): {message}', file=sys.stderr)
        sys.exit(code if code > 0 else 128 - code)


if __name__ == '__main__':
    run(main)
