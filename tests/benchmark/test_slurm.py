"""Cells as jobs, by submitit's processes of this machine in the place of a cluster."""
from types import SimpleNamespace

from cae_mm.benchmark.slurm import submit


def test_jobs_of_this_machine(tmp_path):
    class Cell(SimpleNamespace):
        __hash__ = object.__hash__

    cells = [Cell(gpus=0, run=callable), Cell(gpus=0, run=repr)]
    jobs = submit(cells, 'partition', tmp_path, cluster='local')
    assert [jobs[cell].result() for cell in cells] == [True, repr(print)]
