"""The table of a benchmark: mean and deviation over seeds, beside what is published."""
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from cae_mm.atomic import write_atomically
from cae_mm.benchmark.cells import Cell
from cae_mm.visualization import Section, write_report

LEAD = """Each encoder went through the same tasks by the same protocol; nothing was tuned for one of
them."""
RESULTS = """Percent; higher is better. The mean of the seeds and their standard deviation, where there are
several; in brackets what was published."""
DECIDED = """For each model of a task, beside the protocol, which is the same for all."""


def results(cells: Sequence[Cell]) -> list[dict]:
    """A row for each model and task with records, the tasks in their order."""
    groups = {}
    for cell in cells:
        groups.setdefault((cell.task.name, cell.model.label), []).append(cell)
    rows = []
    for (name, label), group in groups.items():
        task, records = group[0].task, [record for record in (cell.record() for cell in group) if record]
        if not records:
            continue
        values = [task.percent * record['metrics'][task.metric] for record in records]
        published = task.published.get(label)
        rows.append(dict(
            task=name, model=label, metric=task.metric, mean=mean(values),
            std=stdev(values) if len(values) > 1 else None, values=values,
            seeds=[record['identity']['seed'] for record in records],
            seconds=[record['seconds'] for record in records],
            published=published, difference=None if published is None else mean(values) - published,
            source=task.source if published is not None else '', choices=records[0]['identity']['choices'],
            command=records[0]['command']))
    return rows


def table(rows: Sequence[dict], models: Sequence[str]) -> list[list[str]]:
    """Models in rows, tasks in columns; the best of each between stars, published numbers in brackets."""
    tasks = list(dict.fromkeys(row['task'] for row in rows))
    by_place = {(row['model'], row['task']): row for row in rows}
    best = {task: max(row['mean'] for row in rows if row['task'] == task) for task in tasks}
    lines = [['', *tasks]]
    for model in models:
        cells = []
        for task in tasks:
            row = by_place.get((model, task))
            if row is None:
                cells.append('–')
                continue
            text = f'{row["mean"]:.1f}' + (f' ± {row["std"]:.1f}' if row['std'] is not None else '')
            text = f'**{text}**' if row['mean'] == best[task] else text
            cells.append(text + (f' ({row["published"]:.1f})' if row['published'] is not None else ''))
        lines.append([model, *cells])
    return lines


def markdown(rows: Sequence[dict], models: Sequence[str]) -> str:
    """The ``table`` as text."""
    head, *lines = table(rows, models)
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in (head, ['---'] * len(head), *lines)) + '\n'


def write(rows: Sequence[dict], models: Sequence[str], out: Path) -> None:
    """Write ``results.json``, ``results.csv``, ``results.md`` and ``report.html``."""
    write_atomically(json.dumps(rows, indent=1).encode(), out / 'results.json')
    text = io.StringIO()
    names = ('task', 'model', 'metric', 'mean', 'std', 'published', 'difference', 'source', 'command')
    lines = csv.DictWriter(text, names, extrasaction='ignore')
    lines.writeheader()
    lines.writerows(rows)
    write_atomically(text.getvalue().encode(), out / 'results.csv')
    write_atomically(markdown(rows, models).encode(), out / 'results.md')
    plain = [[cell.replace('**', '') for cell in line] for line in table(rows, models)]
    write_report(out / 'report.html', 'Encoders in the same tasks', LEAD, [
        Section('Results', RESULTS, plain),
        Section('What was decided', DECIDED, [['', 'task', 'choices'], *(
            [row['model'], row['task'], json.dumps(row['choices'])] for row in rows)]),
        Section('Do it again', 'In the root of the repository, with its environment active:',
                code='\n'.join(f'# {row["model"]}, {row["task"]}: {sum(row["seconds"]):.0f} s\n'
                               + row['command'] for row in rows))])
