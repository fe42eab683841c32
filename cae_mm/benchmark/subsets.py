"""Parts of the data of a benchmark, in their layout: a few images, or some held out of training."""
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mmengine.config import Config

from cae_mm.atomic import write_atomically
from cae_mm.benchmark.cells import Cell
from cae_mm.benchmark.data import Data
from cae_mm.disk import SUFFIXES

HELD_OUT = 5  # one in five images of training
FACTORS = 1 / 3, 1., 3.
Parts = dict[str, tuple[str, Callable[[int], bool]]]  # a part to make -> of which, and which by number


def make(kind: str, folder: Path, out: Path, parts: Parts) -> Data:
    """Write the layout of ``folder`` with some of its images, which are links; what is there stays.

    ``kind`` is 'imagenet', 'coco' or 'ade20k'; images are numbered in each class of ImageNet's.
    """
    for part, (source, chosen) in parts.items():
        if kind == 'imagenet':
            for label in sorted(path for path in (folder / source).iterdir() if path.is_dir()):
                _link(label, out / part / label.name, chosen)
        elif kind == 'ade20k':
            names = dict(train='training', val='validation')
            for side in ('images', 'annotations'):
                _link(folder / side / names[source], out / side / names[part], chosen)
            _link(folder, out, lambda number: True, ('.txt',))
        else:
            _coco(folder, out, part, source, chosen)
    return Data(out)


def _link(folder: Path, out: Path, chosen: Callable[[int], bool], suffixes: tuple = SUFFIXES) -> None:
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in folder.iterdir() if path.name.lower().endswith(suffixes))
    for number, path in enumerate(files):
        link = out / path.name
        if chosen(number) and not link.exists():
            link.symlink_to(path)


def _coco(folder: Path, out: Path, part: str, source: str, chosen: Callable[[int], bool]) -> None:
    content = json.loads((folder / f'annotations/instances_{source}2017.json').read_text())
    content['images'] = [image for number, image in enumerate(content['images']) if chosen(number)]
    kept = {image['id'] for image in content['images']}
    content['annotations'] = [each for each in content['annotations'] if each['image_id'] in kept]
    write_atomically(json.dumps(content).encode(), out / f'annotations/instances_{part}2017.json')
    if not (out / f'{part}2017').exists():
        (out / f'{part}2017').symlink_to(folder / f'{source}2017')


def limited(cells: list[Cell], images: int) -> list[Cell]:
    """The same cells on the first images of each part, with one epoch or four iterations.

    Of classes, that is the first of each, ``images`` in all at least.
    """
    made = {}
    for cell in cells:
        each = -(-images // max(1, cell.data.classes)) if cell.task.data == 'imagenet' else images
        out = cell.out / 'limited' / f'{cell.task.data}_{images}'
        if cell.data not in made:
            made[cell.data] = make(cell.task.data, cell.data.folder, out, {
                part: (part, lambda number, each=each: number < each) for part in ('train', 'val')})
    return [replace(cell, data=made[cell.data], out=cell.out / 'limited',
                    extra=short(cell.config) if cell.task.trains else ()) for cell in cells]


def short(cfg: Config) -> tuple[str, ...]:
    """Options that make a training as short as it can be."""
    length = 'train_cfg.max_epochs=1' if 'max_epochs' in cfg.train_cfg else 'train_cfg.max_iters=4'
    if isinstance(cfg.param_scheduler, dict):
        return length, 'param_scheduler.warmup_epochs=0'
    return length, *(f'param_scheduler.{number}.end=2' for number, each in enumerate(cfg.param_scheduler)
                     if each.type.endswith('LinearLR'))


def rates(cell: Cell) -> list[str]:
    """An option for each of the rates that a sweep tries."""
    rate = cell.config.optim_wrapper.optimizer.lr
    return [f'optim_wrapper.optimizer.lr={rate * factor:.4g}' for factor in FACTORS]


def candidates(cell: Cell) -> list[Cell]:
    """Trainings with each of ``FACTORS`` times a cell's rate, measured on images held out of training."""
    held = make(cell.task.data, cell.data.folder, cell.out / 'sweep' / cell.task.data, {
        'train': ('train', lambda number: number % HELD_OUT > 0),
        'val': ('train', lambda number: number % HELD_OUT == 0)})
    return [replace(cell, data=held, out=cell.out / 'sweep', extra=(*cell.extra, rate))
            for rate in rates(cell)]
