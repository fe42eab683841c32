"""Curves of training runs."""
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from cae_mm.visualization.figure import save_figure

LABELS = {'loss_reconstruct': 'reconstruction loss', 'loss_align': 'alignment loss',
          'accuracy': 'masked tokens right, %', 'lr': 'learning rate',
          'code_usage': 'codes in use, %', 'code_perplexity': 'perplexity of the codes',
          'knn/top1_k20': 'k-NN (k = 20), %', 'coco/bbox_mAP': 'box AP', 'coco/segm_mAP': 'mask AP',
          'mIoU': 'mIoU, %'}
COLOURS = '#1f5fa8', '#c4572b', '#3a8a4d', '#7b4fa3', '#a8871f', '#4a4a4a'


def read_scalars(work_dir: str | Path) -> list[dict]:
    """All logged records of a work directory, of its resumed parts too, in order, without cut lines."""
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    records = []
    for line in (line for file in files for line in file.read_text(errors='replace').splitlines()):
        with suppress(ValueError):
            records.append(json.loads(line))
    if not records:
        raise FileNotFoundError(f'{work_dir} has no */vis_data/scalars.json of a training run')
    return records


def series(records: list[dict], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of one logged name; a step that was logged twice counts as it was last."""
    values = {record['step']: record[name] for record in records
              if name in record and 'step' in record}
    steps = sorted(values)
    return np.array(steps), np.array([values[step] for step in steps])


def draw_curves(
        runs: str | Path | Mapping[str, Sequence[Path]], path: str | Path,
        names: Sequence[str] = ('loss_reconstruct', 'loss_align', 'accuracy', 'lr')) -> None:
    """Write a PNG with a panel for each of ``names`` that was logged.

    ``runs`` is the work directory of a run; or what the lines of two are called, and for each of them the
    directories that its panels come from.
    """
    records = {'': read_scalars(runs)} if not isinstance(runs, Mapping) else {
        label: sum(map(read_scalars, work_dirs), []) for label, work_dirs in runs.items()}
    curves = {name: [(label, *series(run, name)) for label, run in records.items()] for name in names}
    draw_lines({name: lines for name, lines in curves.items() if any(len(steps) for _, steps, _ in lines)},
               path)


def draw_lines(panels: Mapping[str, Sequence[tuple]], path: str | Path) -> None:
    """Write a PNG with a panel for each name, and in it a line for each (label, steps, values).

    Two panels stand in a row: a phone, too, shows their words. Lines of a label have the same colour.
    """
    from matplotlib.figure import Figure  # late: most trainings draw nothing
    rows, columns = -(-len(panels) // 2), min(len(panels), 2)
    figure = Figure(figsize=(3.2 * columns, 2.6 * rows), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    labels = list(dict.fromkeys(label for lines in panels.values() for label, *_ in lines))
    for axis, (name, lines) in zip(axes, panels.items(), strict=False):
        for i, (label, steps, values) in enumerate(lines):
            known = label in [other for other, *_ in lines[:i]]
            axis.plot(steps, values, color=COLOURS[labels.index(label) % len(COLOURS)], lw=1.2, ms=3,
                      marker='o' if len(steps) < 12 else '', label=None if known else label)
        if labels != ['']:
            axis.legend(fontsize=9, frameon=False)
        axis.set_title(LABELS.get(name, name), fontsize=11)
        axis.set_xlabel('epoch' if '/' in name else 'iteration')
        axis.tick_params(labelsize=9)
        axis.grid(alpha=0.3)
        axis.spines[['top', 'right']].set_visible(False)
    for axis in axes[len(panels):]:
        axis.set_visible(False)
    save_figure(figure, path)
