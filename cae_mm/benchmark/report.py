"""The report of a benchmark: one HTML file."""
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from cae_mm.benchmark.pictures import draw_losses
from cae_mm.benchmark.table import notes, table, verdict
from cae_mm.visualization import Section, write_report
from cae_mm.visualization.report import portable

LEAD = """Each encoder went through the same tasks by the same protocol; nothing was tuned for one of them.
No number sums up the tasks: they ask for different things."""
RESULTS = """Percent; higher is better: the mean over the seeds, ± their standard deviation where there
are several, and [the interval of 95 %] of a bootstrap over the validation images, the same for all models.
In bold the best of a task, and all whose difference to it could be chance by such an interval; the
bootstrap knows nothing of other seeds."""
COST = """Of the encoder: parameters, and operations for one image (a multiply-add is two). Of the cells of
a task: minutes, the sum of the seeds."""
PICTURES = dict(
    losses=('How the trainings went', 'The loss of each training, one line for each seed.'),
    patches=('How the patches look to each encoder', """The three principal components of the patches of
all pictures, as red, green and blue: patches of like colour are alike to the encoder."""),
    attention=('What the class token looks at', 'In the last block, the mean of the heads.'))
FOUND = 'What each model finds in the same pictures of the validation set.'
DECIDED = """What follows the encoder, beside the protocol, which is the same for all; and how its weights
were read."""


def cost_table(records: Sequence[dict]) -> list[list[str]]:
    """Parameters, operations and minutes of each model."""
    tasks = list(dict.fromkeys(record['task'] for record in records))
    lines = [['', 'M parameters', 'GFLOPs', *(f'{task}, min' for task in tasks)]]
    for model in dict.fromkeys(record['model'] for record in records):
        mine = [record for record in records if record['model'] == model]
        cost = mine[0]['cost']
        spent = {task: sum(record['seconds'] for record in mine if record['task'] == task) / 60
                 for task in tasks}
        lines.append([model, f'{cost["parameters"]:.1f}', f'{cost["gflops"]:.2f}',
                      *(f'{spent[task]:.1f}' if spent[task] else '–' for task in tasks)])
    return lines


def decided_table(records: Sequence[dict], out: Path) -> list[list[str]]:
    """The choices for each model and task, and the report of its weights."""
    lines = [['', 'task', 'choices', 'weights']]
    for (model, task), record in {(each['model'], each['task']): each for each in records}.items():
        choices = ', '.join(f'{key} {json.dumps(value)}' for key, value in record['choices'].items())
        read = ' '.join(record['conversion']) or record['identity']['weights']
        lines.append([model, task, choices, portable(read, out)])
    return lines


def commands(records: Sequence[dict]) -> str:
    """Each number's command, with what else it hangs on."""
    return '\n'.join(
        '# {model}, {task}, seed {identity[seed]}: {value:.2f} after {seconds:.0f} s on '
        '{identity[device]}, {date}, commit {commit}, {versions}\n{command}'.format(
            **record, versions=', '.join(map(' '.join, record['identity']['versions'].items())))
        for record in records)


def write_benchmark(records: Sequence[dict], rows: Sequence[dict], out: Path,
                    pictures: Mapping[str, Path]) -> None:
    """Write ``report.html`` with PNG files by 'patches' and 'attention', or by the name of a task."""
    drawn = {'losses': draw_losses(records, out / 'losses.png'), **pictures}
    write_report(out / 'report.html', 'Encoders in the same tasks', LEAD, [
        Section('Results', '\n\n'.join([verdict(rows), RESULTS, *notes(rows)]), table(rows)),
        Section('What it costs', COST, cost_table(records)),
        *(Section(*PICTURES.get(name, (f'What is found: {name}', FOUND)), figure=path)
          for name, path in drawn.items() if path),
        Section('What was decided', DECIDED, decided_table(records, out)),
        Section('Do it again', 'In the root of the repository, with its environment active:',
                code=portable(commands(records), out))])
