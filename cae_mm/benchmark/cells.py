"""One number of a benchmark: a command, what decides its result, and the record of that."""
import hashlib
import json
import os
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mmengine
import timm
import torch
from mmengine.config import Config, DictAction

from cae_mm.atomic import write_atomically
from cae_mm.benchmark.models import Model
from cae_mm.benchmark.suite import Suite, Task
from cae_mm.disk import SUFFIXES, walk
from cae_mm.engine import launch
from cae_mm.engine.commands import run_command
from cae_mm.engine.keys import dicts
from cae_mm.visualization.curves import read_scalars

ROOT = next(place for place in (Path(__file__).parents[1] / '.mim', Path(__file__).parents[2])
            if (place / 'tools').is_dir())


@dataclass(frozen=True)
class Data:
    """A folder of data, and what it holds."""

    folder: Path

    @cached_property
    def fingerprint(self) -> str:
        """Number of its files, and the SHA-256 of their names and sizes."""
        listed, number = hashlib.sha256(), 0
        for name in sorted(name for name, is_folder in walk(self.folder, {}) if not is_folder):
            if name.lower().endswith((*SUFFIXES, '.json', '.txt')):
                size = os.stat(self.folder / name).st_size
                listed.update(os.fsencode(f'{name} {size}\n'))
                number += 1
        return f'{number} files {listed.hexdigest()[:16]}'

    @cached_property
    def classes(self) -> int:
        """The number of folders of a class."""
        return sum(path.is_dir() for path in (self.folder / 'train').glob('*'))


@dataclass(frozen=True)
class Cell:
    """A model, a task and a seed.

    Args:
        suite, model, task: see there.
        seed (int): of the training, or of a random encoder.
        data (Data): of the task.
        out (Path): folder of the benchmark.
        gpus (int): of this machine; 0 is its CPU.
    """

    suite: Suite
    model: Model
    task: Task
    seed: int
    data: Data
    out: Path
    gpus: int = 0

    @cached_property
    def options(self) -> list[str]:
        """Those of the task, for these data."""
        return [text.format(data=self.data.folder, classes=self.data.classes) for text in self.task.options]

    @cached_property
    def config(self) -> Config | None:
        """Of a training, with this model in it and one evaluation, at its end."""
        if not self.task.trains:
            return None
        options = {key: DictAction._parse_iterable(value)
                   for key, _, value in (text.partition('=') for text in self.options)}
        cfg = launch.load_config(Namespace(
            config=str(ROOT / self.task.run), cfg_options=options, data_root=[str(self.data.folder)],
            pretrained=self.model.weights, backbone=self.model.encoder, work_dir='.', launcher='none'))
        cfg.train_cfg.val_interval = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.max_iters
        return cfg

    @cached_property
    def choices(self) -> dict:
        """What was decided for this model: for the table, beside its numbers."""
        if self.config is None:
            return dict(encoder=self.model.encoder or self.suite.encoder)
        backbone = next(node['backbone'] for node in dicts(self.config.model) if 'backbone' in node)
        pixels = self.config.model.get('data_preprocessor') or self.config.data_preprocessor
        kept = ('type', 'name', 'arch', 'img_size', 'patch_size', 'out_type', 'out_indices', 'final_norm')
        return {**{key: backbone[key] for key in kept if key in backbone},
                **{key: list(pixels[key]) for key in ('mean', 'std')}}

    @cached_property
    def identity(self) -> dict:
        """All that decides the result: where it differs, it is another cell."""
        protocol = self.task.run, *self.options
        if self.config is not None:
            text = json.dumps(self.config._cfg_dict.to_dict(), sort_keys=True, default=repr)
            for path, name in ((self.data.folder, 'DATA'), (self.model.weights, 'WEIGHTS')):
                text = text.replace(json.dumps(str(path))[1:-1], name)
            protocol = *protocol, text
        return dict(
            model=self.model.label, task=self.task.name, seed=self.seed, weights=self.model.digest(),
            data=self.data.fingerprint, choices=self.choices,
            protocol=hashlib.sha256(repr(protocol).encode()).hexdigest()[:16],
            versions=dict(cae_mm=sys.modules['cae_mm'].__version__, torch=torch.__version__,
                          timm=timm.__version__, mmengine=mmengine.__version__),
            device=torch.cuda.get_device_name() if self.gpus and torch.cuda.is_available() else 'CPU',
            gpus=self.gpus)

    @cached_property
    def folder(self) -> Path:
        """Its own: another setting has another one."""
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True, default=str).encode()).hexdigest()
        return self.out / 'cells' / self.model.label / self.task.name / f'{self.seed}-{digest[:8]}'

    @cached_property
    def command(self) -> list[str]:
        """What a person would type in the root of the repository."""
        tools = ['tools/dist_train.sh', self.task.run, str(self.gpus)] if self.task.trains else [
            'tools/dist_run.sh', self.task.run, str(self.gpus)]
        if self.gpus < 2:
            tools = ['python', *(['tools/train.py'] if self.task.trains else []), self.task.run]
        if not self.task.trains:
            # A random encoder is another one with each seed.
            kept = self.out / 'features' / self.model.label / str(self.seed if self.model.is_random else 0)
            return [*tools, self.model.encoder or self.suite.encoder, self.model.weights,
                    '--data', str(self.data.folder), '--seed', str(self.seed), '--features', str(kept),
                    '--out', str(self.folder / 'metrics.json'), *self.options]
        backbone = ['--backbone', self.model.encoder] if self.model.encoder else []
        once = f'train_cfg.val_interval={self.config.train_cfg.val_interval}'
        return [*tools, '--data-root', str(self.data.folder), *backbone, '--pretrained', self.model.weights,
                '--work-dir', str(self.folder / 'run'), '--resume', '--cfg-options',
                f'randomness.seed={self.seed}', once, *self.options]

    def shell(self) -> str:
        """The command as text."""
        return shlex.join(self.command)

    def record(self) -> dict | None:
        """What was measured; None where it is not done."""
        path = self.folder / 'record.json'
        return json.loads(path.read_text()) if path.is_file() else None

    def run(self, show) -> dict:
        """Run the command, and keep the record of it.

        Raises:
            RuntimeError: with the last lines of its output, when it fails.
        """
        log, start, lines = self.folder / 'output.log', time.time(), []

        def watch(line):
            lines.append(line)
            show(line)

        command = [sys.executable, '-W', 'ignore', *self.command[1:]] if self.gpus < 2 else [
            'bash', *self.command]
        code = run_command(command, log, ROOT, watch)
        if code:
            raise RuntimeError(f'exit code {code}; {log} ends with\n' + ''.join(lines[-5:]))
        record = dict(identity=self.identity, command=self.shell(), metrics=self.metrics(),
                      seconds=round(time.time() - start, 1), date=time.strftime('%Y-%m-%d'))
        write_atomically(json.dumps(record, indent=1).encode(), self.folder / 'record.json')
        return record

    def metrics(self) -> dict[str, float]:
        """What the command measured.

        Raises:
            RuntimeError: when the metric of the task is not among it.
        """
        if self.task.trains:
            scalars = read_scalars(self.folder / 'run')
            found = next((record for record in reversed(scalars) if self.task.metric in record), {})
        else:
            found = json.loads((self.folder / 'metrics.json').read_text())
        if self.task.metric not in found:
            raise RuntimeError(f'{self.folder}: there is no {self.task.metric} among {", ".join(found)}')
        return {key: value for key, value in found.items() if isinstance(value, (int, float))}


def cells_of(suite: Suite, models: Sequence[Model], tasks: Sequence[Task], seeds: Sequence[int],
             data: dict[str, Path], out: Path, gpus: int) -> list[Cell]:
    """All cells: task by task, and of what no training decides one seed alone."""
    folders = {name: Data(path) for name, path in data.items()}
    return [Cell(suite, model, task, seed, folders[task.data], out, gpus)
            for task in tasks for model in models
            for seed in (seeds if task.trains or model.is_random else seeds[:1])]
