"""Cells as jobs of a Slurm cluster, through submitit."""
from collections.abc import Sequence
from pathlib import Path

from cae_mm.benchmark.cells import Cell

HOURS = 72


def submit(cells: Sequence[Cell], partition: str, folder: Path, cluster: str = 'slurm') -> dict:
    """Submit each cell, with its GPUs, as a job of one node; a job's ``result`` waits for the record.

    ``folder`` is for the files of the jobs; all nodes see it, and what the cells read and write.
    ``cluster`` is 'local' to run the jobs as processes of this machine. An ImportError when submitit is not
    installed.
    """
    try:
        import submitit
    except ImportError as error:
        raise ImportError('--slurm needs submitit: pip install "cae-mm[slurm]"') from error
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    executor.update_parameters(
        timeout_min=60 * HOURS, tasks_per_node=1, cpus_per_task=8 * max(1, cells[0].gpus),
        gpus_per_node=cells[0].gpus, name='cae_mm',
        **(dict(slurm_partition=partition) if cluster == 'slurm' else {}))
    return {cell: executor.submit(cell.run, print) for cell in cells}
