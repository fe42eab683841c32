"""Encoders in rows, tasks in columns."""
from cae_mm.benchmark.cells import Cell, cells_of
from cae_mm.benchmark.models import Model, parse_model
from cae_mm.benchmark.suite import Suite, Task, choose, read_suite
from cae_mm.benchmark.table import markdown, merge, summarise, with_reference, write_tables

__all__ = ['Cell', 'Model', 'Suite', 'Task', 'cells_of', 'choose', 'markdown', 'merge', 'parse_model',
           'read_suite', 'summarise', 'with_reference', 'write_tables']
