"""The table of a benchmark: mean, deviation and interval, beside chance and what is published."""
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from cae_mm.atomic import write_atomically
from cae_mm.benchmark.statistics import interval, not_worse, resampled

RESULTS = 'results.json'


def read_results(folder: Path) -> list[dict]:
    """The records of a finished benchmark, or a FileNotFoundError or ValueError."""
    path = folder / RESULTS
    if not path.is_file():
        raise FileNotFoundError(f'{folder} has no {RESULTS}: name the --out of a benchmark')
    try:
        records = json.loads(path.read_text())['records']
        assert all(isinstance(record['value'], float) for record in records)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise ValueError(f'{path} holds no records of a benchmark: {error!r}') from None
    return records


def merge(folders: Sequence[Path]) -> list[dict]:
    """The records of several benchmarks, those that they share once; a ValueError where they conflict."""
    found = {}
    for folder in folders:
        for record in read_results(folder):
            place = record['model'], record['task'], record['identity']['seed']
            other, _ = found.setdefault(place, (record, folder))
            if unlike := [key for key, value in other['identity'].items()
                          if value != record['identity'].get(key)]:
                raise ValueError('{}, {}, seed {}: {} and {} differ in {}; give one of the models another '
                                 'label'.format(*place, found[place][1], folder, ', '.join(unlike)))
    return [record for record, _ in found.values()]


def with_reference(records: Sequence[dict], path: Path) -> list[dict]:
    """The records, and those in ``path``, if any, of other models in the same tasks on the same data."""
    if not path.is_file():
        return list(records)
    data = {record['task']: record['same']['data'] for record in records}
    ours = json.loads(path.read_text())['records']
    return [*records, *({**record, 'model': f'{record["model"]} (reference)'} for record in ours
                        if record['same']['data'] == data.get(record['task']))]


def summarise(records: Sequence[dict]) -> list[dict]:
    """A row for each task and model, the tasks in their order.

    ``leads`` is true for the best model of a task and for all whose difference to it, on the same images,
    has an interval that reaches zero. Where models differ in what has to be the same for all, none leads,
    and ``differs`` says in what.
    """
    tasks = {}
    for record in records:
        tasks.setdefault(record['task'], {}).setdefault(record['model'], []).append(record)
    rows = []
    for task, models in tasks.items():
        differs = difference({label: found[0]['same'] for label, found in models.items()})
        values = {label: [record['value'] for record in found] for label, found in models.items()}
        best, samples = max(values, key=lambda label: mean(values[label])), {}
        if not differs and all(record['right'] for found in models.values() for record in found):
            samples = resampled({label: [record['right'] for record in found]
                                 for label, found in models.items()})
        leading = set() if differs else not_worse(samples, best) | {best}
        for label, found in models.items():
            first, middle = found[0], mean(values[label])
            rows.append(dict(
                task=task, model=label, metric=first['metric'], mean=middle,
                std=stdev(values[label]) if len(found) > 1 else None,
                interval=interval(samples[label]) if samples else None,
                leads=label in leading, differs=differs, chance=first['chance'],
                published=first['published'], source=first['source'] if first['published'] else '',
                difference=None if first['published'] is None else middle - first['published'],
                values=values[label], seeds=[record['identity']['seed'] for record in found],
                seconds=sum(record['seconds'] for record in found), command=first['command']))
    return rows


def difference(same: dict[str, dict]) -> str:
    """In what models differ that should not, by their labels; '' where in nothing."""
    told = []
    for key in dict.fromkeys(key for settings in same.values() for key in settings):
        values = {label: str(settings.get(key)) for label, settings in same.items()}
        if len(set(values.values())) > 1:
            told.append(f'{key}: ' + ', '.join(f'{label} {value}' for label, value in values.items()))
    return '; '.join(told)


def cell_text(row: dict | None) -> str:
    """A row's number, with its deviation and interval; between stars where it leads."""
    if row is None:
        return '–'
    text = f'{row["mean"]:.1f}' + (f' ± {row["std"]:.1f}' if row['std'] is not None else '')
    text = f'**{text}**' if row['leads'] else text
    return text + (' [{:.1f}, {:.1f}]'.format(*row['interval']) if row['interval'] else '')


def table(rows: Sequence[dict]) -> list[list[str]]:
    """Tasks in columns; chance, the models, and what is published of them in rows."""
    tasks = list(dict.fromkeys(row['task'] for row in rows))
    place = {(row['model'], row['task']): row for row in rows}
    models = list(dict.fromkeys(row['model'] for row in rows))
    chance = {row['task']: row['chance'] for row in rows if row['chance'] is not None}
    lines = [['', *(task + ' †' * bool(place_of(rows, task)['differs']) for task in tasks)]]
    if chance:
        lines.append(['chance', *(f'{chance[task]:.1f}' if task in chance else '–' for task in tasks)])
    for model in models:
        lines.append([model, *(cell_text(place.get((model, task))) for task in tasks)])
        known = {task: row for task in tasks if (row := place.get((model, task))) and row['source']}
        if known:
            lines.append([f'{model}, published (ours − it)', *(
                '{published:.1f} ({difference:+.1f})'.format(**known[task]) if task in known else '–'
                for task in tasks)])
    return lines


def verdict(rows: Sequence[dict]) -> str:
    """The result in a sentence: who leads in which tasks."""
    leads = {}
    for row in rows:
        if row['leads']:
            leads.setdefault(row['model'], []).append(row['task'])
    told = '; '.join(f'{model} in {", ".join(tasks)}' for model, tasks in leads.items())
    return f'The best, or not worse beyond chance: {told}.' if told else ''


def place_of(rows: Sequence[dict], task: str) -> dict:
    """The first row of a task."""
    return next(row for row in rows if row['task'] == task)


def notes(rows: Sequence[dict]) -> list[str]:
    """What a reader of the table has to know: sources, and why models of a task are not ranked."""
    told = [f'† {row["task"]} is not ranked: the models differ in {row["differs"]}'
            for row in rows if row['differs'] and row is place_of(rows, row['task'])]
    sources = dict.fromkeys(row['source'] for row in rows if row['source'])
    return told + ([f'Published: {", ".join(sources)}'] if sources else [])


def markdown(rows: Sequence[dict]) -> str:
    """The ``table`` and its ``notes`` as text."""
    head, *lines = table(rows)
    body = '\n'.join('| ' + ' | '.join(line) + ' |' for line in (head, ['---'] * len(head), *lines))
    return '\n\n'.join([body, *notes(rows)]) + '\n'


def latex(rows: Sequence[dict]) -> str:
    """The ``table`` for a paper, with the rules of the booktabs package."""
    def escape(text):
        bold = text.startswith('**')
        for char in '&%#_':
            text = text.replace(char, f'\\{char}')
        text = text.replace('±', '$\\pm$').replace('†', '$\\dagger$').replace('−', '$-$')
        if bold:
            _, strong, rest = text.split('**')
            text = f'\\textbf{{{strong}}}{rest}'
        return text.replace('–', '--')

    head, *lines = [' & '.join(map(escape, line)) + r' \\' for line in table(rows)]
    width = len(dict.fromkeys(row['task'] for row in rows))
    return '\n'.join([*(f'% {note}' for note in notes(rows)), f'\\begin{{tabular}}{{l{"r" * width}}}',
                      r'\toprule', head, r'\midrule', *lines, r'\bottomrule', r'\end{tabular}', ''])


def write_tables(records: Sequence[dict], out: Path) -> list[dict]:
    """Write results.json, .csv, .md and .tex; return the rows."""
    rows, text = summarise(records), io.StringIO()
    content = dict(rows=rows, records=list(records))
    write_atomically(json.dumps(content, indent=1).encode(), out / RESULTS)
    names = ('task', 'model', 'metric', 'mean', 'std', 'interval', 'leads', 'chance', 'published',
             'difference', 'source', 'seconds', 'command')
    lines = csv.DictWriter(text, names, extrasaction='ignore')
    lines.writeheader()
    lines.writerows(rows)
    for name, written in ((RESULTS.replace('json', 'csv'), text.getvalue()),
                          (RESULTS.replace('json', 'md'), markdown(rows)),
                          (RESULTS.replace('json', 'tex'), latex(rows))):
        write_atomically(written.encode(), out / name)
    return rows
