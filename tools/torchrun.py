#!/usr/bin/env python
"""PyTorch's torchrun, which says at the end, in one line, what was wrong, and ends with that exit code."""
import os
import signal
import sys

from terminal import run
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher import api
from torch.distributed.run import parse_args
from torch.distributed.run import run as launch


class Agent(LocalElasticAgent):
    """PyTorch's agent, which starts all processes anew only where that may help, and says so."""

    def __init__(self, *args, **kwargs):
        # Those that start anew get a store of their own: in the one that PyTorch 2.13 keeps for all, they
        # may find the addresses of those that have ended, and wait for them.
        os.environ['TORCH_DISABLE_SHARE_RDZV_TCP_STORE'] = '1'
        super().__init__(*args, **kwargs)

    def _monitor_workers(self, worker_group):
        result = super()._monitor_workers(worker_group)
        codes = [failure.exitcode for failure in result.failures.values()] if result.is_failed() else []
        if any(code == 2 or code > 128 for code in codes):  # wrong input, or ended on purpose
            self._remaining_restarts = 0
        elif codes and self._remaining_restarts:
            lost = ', '.join(f'{rank} ({failure.exitcode})' for rank, failure in result.failures.items())
            print(f'cae_mm: lost rank (exit code) {lost}: all start anew, which they may do '
                  f'{self._remaining_restarts} times', file=sys.stderr, flush=True)
        return result


def main() -> None:
    """Start the processes and wait for them."""
    api.LocalElasticAgent = Agent
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
