"""One number of a benchmark: a command, what decides its result, and the record of that."""
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import mmengine
import timm
import torch
from mmengine.config import Config
from timm.models import get_pretrained_cfg

from cae_mm.atomic import write_atomically
from cae_mm.benchmark.cost import cost_of_encoder, training_operations
from cae_mm.benchmark.data import Data
from cae_mm.benchmark.models import Model
from cae_mm.benchmark.suite import Suite, Task
from cae_mm.configs import ROOT
from cae_mm.engine import launch
from cae_mm.engine.backbones import TIMM
from cae_mm.engine.commands import run_command
from cae_mm.engine.keys import dicts
from cae_mm.engine.literals import parse_value
from cae_mm.evaluation.protocol import load_encoder
from cae_mm.models.vit import ENCODERS
from cae_mm.visualization.curves import read_scalars, series

RIGHT, METRICS = 'right.txt', 'metrics.json'
SMALLER = """The device ran out of memory. The same step in parts, for all models of a suite of your own:
train_dataloader.batch_size=HALF optim_wrapper.accumulative_counts=2 among the task's options.
"""
REPORTED = 'loaded the whole encoder', 'loaded all of', 'new parts'  # what the loaders tell


@dataclass(frozen=True, eq=False)
class Cell:
    """A model, a task and a seed, of the training or of a random encoder.

    ``data`` are those of the task, ``out`` is the folder of the benchmark, ``gpus`` of this machine, of
    which 0 is its CPU, and ``extra`` options of a training beside those of the task.
    """

    suite: Suite
    model: Model
    task: Task
    seed: int
    data: Data
    out: Path
    gpus: int = 0
    extra: tuple[str, ...] = ()

    @cached_property
    def options(self) -> list[str]:
        """Those of the task, for these data."""
        return [*(text.format(data=self.data.folder, classes=self.data.classes)
                  for text in self.task.options), *self.extra]

    @cached_property
    def config(self) -> Config | None:
        """Of a training, with this model in it and one evaluation, at its end."""
        if not self.task.trains:
            return None
        options = {key: parse_value(value)
                   for key, _, value in (text.partition('=') for text in self.options)}
        cfg = launch.load_config(Namespace(
            config=str(ROOT / self.task.run), cfg_options=options, data_root=[str(self.data.folder)],
            pretrained=self.model.weights, backbone=self.model.encoder, work_dir='.', launcher='none'))
        cfg.train_cfg.val_interval = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.max_iters
        return cfg

    @cached_property
    def source(self) -> Config | str:
        """What its encoder is built of, see ``load_encoder``."""
        name = self.model.encoder or self.suite.encoder
        return Config.fromfile(ROOT / name) if name.endswith('.py') else name

    @cached_property
    def encoder(self) -> dict:
        """The settings of its backbone."""
        if self.config is not None:
            return next(node['backbone'] for node in dicts(self.config.model) if 'backbone' in node)
        if isinstance(self.source, Config):
            return self.source.model.backbone
        name = self.source.removeprefix(TIMM)
        known = dict(type='CAEViT', arch=ENCODERS[name]) if name in ENCODERS else dict(
            type='TimmViT', name=name, out_type='raw')
        size = 224 if name in ENCODERS else get_pretrained_cfg(name).input_size[-1]
        given = dict(zip(self.options, self.options[1:], strict=False))
        return dict(**known, img_size=int(given.get('--img-size', size)))

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width, in pixels, of the images that the encoder takes in training."""
        size = self.encoder.get('img_size', 224)
        return (size, size) if isinstance(size, int) else tuple(size)

    @cached_property
    def choices(self) -> dict:
        """What was decided for this model: for the table, beside its numbers."""
        kept = ('type', 'name', 'arch', 'img_size', 'patch_size', 'out_type', 'out_indices', 'final_norm')
        chosen = {key: self.encoder[key] for key in kept if key in self.encoder}
        if self.config is None:
            return chosen
        pixels = self.config.model.get('data_preprocessor') or self.config.data_preprocessor
        return {**chosen, **{key: list(pixels[key]) for key in ('mean', 'std')}}

    @cached_property
    def same(self) -> dict:
        """What has to be the same for all models that are ranked in this task."""
        return {'data': self.data.fingerprint, 'protocol': shlex.join([self.task.run, *self.task.options]),
                'image size': '{}x{}'.format(*self.size)}

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
    def operations(self) -> float:
        """About how many it takes, of floating-point numbers; features are extracted for one task alone."""
        if self.config is None:
            images = self.data.images('train') + self.data.images('val')
            return 1e9 * cost_of_encoder(self.encoder, self.size)['gflops'] * images
        loop, batch = self.config.train_cfg, self.config.train_dataloader.batch_size
        images = loop.max_iters * batch * max(1, self.gpus) if 'max_iters' in loop else (
            loop.max_epochs * self.data.images('train'))
        return training_operations(self.config, self.size, images)

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
                    '--out', str(self.folder / METRICS), '--right', str(self.folder / RIGHT), *self.options]
        backbone = ['--backbone', self.model.encoder] if self.model.encoder else []
        settings = [f'randomness.seed={self.seed}',
                    f'train_cfg.val_interval={self.config.train_cfg.val_interval}']
        if self.config.val_evaluator.type == 'RecordedAccuracy':
            settings.append(f'val_evaluator.out={self.folder / RIGHT}')
        return [*tools, '--data-root', str(self.data.folder), *backbone,
                '--pretrained', self.model.weights, '--work-dir', str(self.folder / 'run'), '--resume',
                '--cfg-options', *settings, *self.options]

    def check_weights(self) -> None:
        """Read the weights into the encoder, as the tasks will; errors name the model."""
        if self.model.is_random:
            return
        try:
            load_encoder(self.source, self.model.weights, 'cpu')
        except (ValueError, RuntimeError) as error:
            raise type(error)(f'--models {self.model.label}={self.model.weights}: {error}') from error

    def shell(self) -> str:
        """The command as text."""
        return shlex.join(self.command)

    def record(self) -> dict | None:
        """What was measured; None where it is not done."""
        path = self.folder / 'record.json'
        return json.loads(path.read_text()) if path.is_file() else None

    def run(self, show) -> dict:
        """Run the command and keep its record; a RuntimeError has the last lines of the output."""
        log, start, lines = self.folder / 'output.log', time.time(), []

        def watch(line):
            lines.append(line)
            show(line)

        command = [sys.executable, '-W', 'ignore', *self.command[1:]] if self.gpus < 2 else [
            'bash', *self.command]
        os.environ.setdefault('PYTHON', sys.executable)  # for the scripts
        code = run_command(command, log, ROOT, watch)
        if code:
            advice = SMALLER * any('out of memory' in line for line in lines)
            raise RuntimeError(f'exit code {code}; {log} ends with\n' + ''.join(lines[-5:]) + advice)
        record = self._measured(lines) | dict(seconds=round(time.time() - start, 1))
        write_atomically(json.dumps(record, indent=1).encode(), self.folder / 'record.json')
        return record

    def _measured(self, lines: list[str]) -> dict:
        """The record: the numbers, and all that a table says of them."""
        task, name = self.task, self.task.metric
        if task.trains:
            scalars = read_scalars(self.folder / 'run')
            found = next((record for record in reversed(scalars) if name in record), {})
            curves = {key: series(scalars, key) for key in ('loss', name)}
            curves = {key: [column[::max(1, len(column) // 100)].tolist() for column in curve]
                      for key, curve in curves.items() if len(curve[0])}
            right = self.folder / RIGHT
            right = {'accuracy/top1': right.read_text()} if right.is_file() else {}
        else:
            found, curves = json.loads((self.folder / METRICS).read_text()), {}
            right = json.loads((self.folder / RIGHT).read_text())
        if name not in found:
            raise RuntimeError(f'{self.folder}: there is no {name} among {", ".join(found)}')
        return dict(
            model=self.model.label, task=task.name, metric=name, value=task.percent * found[name],
            right=right.get(name), chance=100 / self.data.classes if name in right else None,
            published=task.published.get(self.model.label), source=task.source, same=self.same,
            choices=self.choices, cost=cost_of_encoder(self.encoder, self.size), curves=curves,
            metrics={key: value for key, value in found.items() if isinstance(value, (int, float))},
            conversion=[portable(re.sub('.* - INFO - ', '', line.strip())) for line in lines
                        if any(word in line for word in REPORTED)],
            identity=self.identity, command=portable(self.shell()), commit=commit(),
            date=time.strftime('%Y-%m-%d'))


def portable(text: str) -> str:
    """With the files of this project by their place in it."""
    return text.replace(f'{ROOT}/', '')


@cache
def commit() -> str:
    """Of this project, where it is a repository; with a plus when files of it were changed."""
    with suppress(OSError):  # installed, it may lie in another repository
        if not (ROOT / '.git').exists():
            return ''
        found = [subprocess.run(['git', '-C', ROOT, *words], capture_output=True, text=True).stdout.strip()
                 for words in (('rev-parse', '--short', 'HEAD'), ('status', '--porcelain', '-uno'))]
        return found[0] + '+' * bool(found[1])
    return ''


def cells_of(suite: Suite, models: Sequence[Model], tasks: Sequence[Task], seeds: Sequence[int],
             data: dict[str, Path], out: Path, gpus: int) -> list[Cell]:
    """All cells: task by task, and of what no training decides one seed alone."""
    folders = {name: Data(path) for name, path in data.items()}
    return [Cell(suite, model, task, seed, folders[task.data], out, gpus)
            for task in tasks for model in models
            for seed in (seeds if task.trains or model.is_random else seeds[:1])]
