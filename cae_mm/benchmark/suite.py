"""The tasks of a benchmark: what a config in configs/benchmark/ says."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from mmengine.config import Config

from cae_mm.configs import find_config

DATA = dict(imagenet='train/CLASS/* and val/CLASS/*', coco="COCO's layout", ade20k="ADE20K's layout")


@dataclass(frozen=True)
class Task:
    """A column of the table.

    Args:
        name (str): of the task.
        data (str): one of ``DATA``: which option of the command line gives it.
        metric (str): what is logged, or measured, under this name; higher is better.
        run (str): the config of a training, or the tool of an evaluation of frozen features.
        percent (float): what makes percent of the metric.
        options (Sequence[str]): of the tool, or KEY=VALUE of a training's ``--cfg-options``. '{data}' in it
            is the folder of the data, '{classes}' the number of its class folders.
        published (Mapping[str, float]): results by the label of a model, and their ``source``.
    """

    name: str
    data: str
    metric: str
    run: str
    percent: float = 1.
    options: Sequence[str] = ()
    published: Mapping[str, float] = field(default_factory=dict)
    source: str = ''

    @property
    def trains(self) -> bool:
        """Whether it is a training."""
        return not self.run.startswith('tools/')


@dataclass(frozen=True)
class Suite:
    """Tasks, and the encoder that a checkpoint is of where its model names none: a config, or a name."""

    name: str
    encoder: str
    tasks: dict[str, Task]


def read_suite(path: str | Path) -> Suite:
    """Read a config of configs/benchmark/, see ``find_config``; a ValueError when it is no suite."""
    path = find_config(path)
    cfg = Config.fromfile(path)
    if not cfg.get('tasks') or not isinstance(cfg.get('encoder'), str):
        raise ValueError(f'{path} is no suite of tasks: it needs encoder="..." and tasks=dict(...)')
    tasks = {}
    for name, settings in cfg.tasks.items():
        try:
            tasks[name] = Task(name, **settings.to_dict())
        except TypeError as error:
            raise ValueError(f'{path}: task {name}: {error}') from error
        if tasks[name].data not in DATA:
            raise ValueError(f'{path}: task {name}: data={tasks[name].data} is not one of '
                             f'{", ".join(DATA)}')
    return Suite(Path(path).stem, cfg.encoder, tasks)


def choose(suite: Suite, names: Sequence[str] | None, data: Mapping[str, str | None]) -> list[Task]:
    """The tasks that are asked for, or all that have data; a ValueError for one unknown, or without."""
    for name in names or ():
        if name not in suite.tasks:
            near = get_close_matches(name, suite.tasks)
            raise ValueError(f'--tasks {name}: suite {suite.name} has {", ".join(suite.tasks)}'
                             + f'; do you mean {near[0]}?' * bool(near))
    chosen = [suite.tasks[name] for name in names or suite.tasks]
    without = [task for task in chosen if not data.get(task.data)]
    if names and without or len(without) == len(chosen):
        raise ValueError('; '.join(f'{task.name} needs --{task.data} DIR, of {DATA[task.data]}'
                                   for task in without))
    return [task for task in chosen if task not in without]
