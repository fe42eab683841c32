"""Strange pictures in the data of every task: decoded whole, or named as bad with a reason that helps."""
import json
import os
import re
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from cae_mm.datasets.annotations import check_annotations, leaf_datasets
from cae_mm.engine import launch

from . import pictures, toys
from .checkpoints import complaints
from .children import Ended, run
from .report import Case

GOOD, SIDE = 12, 32  # pictures beside the strange one, which is less than a tenth; smaller than that
DATA = {'pretrain': 'pixels', 'cls': 'classes', 'det': 'det/mask_rcnn_cae_vitt_demo',
        'seg': 'seg/upernet_cae_vitt_demo'}
# Tools by their arguments: a config, a folder of data, and the strange picture.
TOOLS = {
    'prepare_images': ('demo/prepare_images.py', '{d}/train/a', 'out'),
    'visualize': ('visualize.py', '{c}', 'none', '--images', '{p}', '--out', 'out.png'),
    'visualize folder': ('visualize.py', '{c}', 'none', '--images', '{d}/train/a', '--num', '20',
                         '--out', 'out.png'),
    'features': ('linear_probe.py', '{c}', 'none', '--data', '{d}')}


def prepare(base: Path) -> None:
    """Nothing beside the toys."""


def run_case(case: Case, base: Path, _) -> None:
    """Put a strange picture among good ones and let one task read them all."""
    case.kind = str(case.rng.choice([*DATA, *TOOLS]))
    picture, folder = pictures.make(case.rng), case.folder / 'data'
    if case.kind in ('det', 'seg'):  # which list their pictures by name, or by suffix
        picture.name = 'strange.jpg' if case.kind == 'seg' else f'strange{Path(picture.name).suffix}'
    place = lay_out(folder, picture, case.kind)
    if case.kind in DATA:
        ended = run(lambda: read_all(case.kind, base, folder, picture.name), case.folder)
    else:
        paths = dict(c=base / 'pixels.py', d=folder, p=place / picture.name)
        command = [argument.format(**paths) for argument in TOOLS[case.kind]]
        ended = run(lambda: read_by_tool(command), case.folder)
    case.harm(ended)
    outcome, problem = judge(case.kind, picture, ended)
    case.count(outcome, picture.kind)
    case.check(not problem, f'{picture.kind} ({ascii(picture.name)[:60]}) {outcome}: {problem}')


def lay_out(folder: Path, picture: pictures.Picture, kind: str) -> Path:
    """A folder in the layout of the task; returns where in it the strange picture is."""
    rng = np.random.default_rng(0)
    place = folder / {'seg': 'images/training', 'det': 'train2017'}.get(kind, 'train/a')
    place.mkdir(parents=True)
    names = [f'{i:02d}.jpg' for i in range(GOOD)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(place / name)
    sizes = [(SIDE, SIDE)] * GOOD + [(SIDE, SIDE) if picture.pixels is None else picture.pixels.shape[:2]]
    if kind == 'seg':
        (folder / 'annotations/training').mkdir(parents=True)
        for name, size in zip([*names, picture.name], sizes, strict=True):
            labels = Image.fromarray(np.ones(size, np.uint8))
            labels.save(folder / 'annotations/training' / Path(name).with_suffix('.png'))
    elif kind == 'det':
        box = dict(category_id=1, bbox=[1, 1, 6, 6], area=36, iscrowd=0, segmentation=[[1, 1, 7, 1, 7, 7]])
        content = dict(
            images=[dict(id=i, file_name=name, height=height, width=width) for i, (name, (height, width))
                    in enumerate(zip([*names, picture.name], sizes, strict=True))],
            annotations=[dict(box, id=i, image_id=i) for i in range(GOOD + 1)],
            categories=[dict(id=1, name='one')])
        (folder / 'annotations').mkdir()
        for part in ('train2017', 'val2017'):
            (folder / f'annotations/instances_{part}.json').write_text(json.dumps(content))
    else:
        for other in ('train/b', 'val/a', 'val/b'):
            shutil.copytree(place, folder / other)
    pictures.put(picture, place)
    return place


def read_all(kind: str, base: Path, folder: Path, name: str) -> dict:
    """Read a training's files by the first steps of its pipeline: what became of each."""
    own = base / f'{DATA[kind]}.py'
    cfg = launch.load_config(Namespace(
        config=str(own if own.exists() else toys.ROOT / f'configs/{DATA[kind]}.py'), launcher='none',
        data_root=[str(folder)], cfg_options=dict(classes=['one']) if kind in ('det', 'seg') else {},
        work_dir='work'))
    init_default_scope(cfg.default_scope)
    check_annotations(cfg, 'train')
    for leaf in leaf_datasets(cfg.train_dataloader.dataset):
        leaf.pipeline = [step for step in leaf.pipeline if step.type.split('.')[-1].startswith('Load')]
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    samples = [dataset[i] for i in range(len(dataset))]
    bad = {os.path.basename(path): reason for path, reason in dataset.bad_files().items()}
    order = slice(None) if kind == 'pretrain' else slice(None, None, -1)  # BGR
    paths = [os.path.basename(sample['img_path']) for sample in samples]
    found = [sample['img'][..., order] for sample, path in zip(samples, paths, strict=True) if path == name]
    return value_of(found, len(set(paths)) - bool(found), bad.get(name, ''))


def read_by_tool(command: list[str]) -> dict:
    """Let a tool read them; of its copies, the strange one is the largest."""
    toys.tool(*command)
    written = [np.asarray(Image.open(path)) for path in sorted(Path('out').rglob('*.jpg'))]
    strange = [image for image in written if image.shape[:2] != (SIDE, SIDE)]
    return value_of(strange, len(written) - len(strange) if written else GOOD)


def value_of(found: list, good: int, bad: str = '') -> dict:
    return dict(bad=bad, shape=found[0].shape if found else None, good=good,
                pixels=np.ascontiguousarray(found[0], np.uint8).tobytes().hex() if found else '')


def judge(kind: str, picture: pictures.Picture, ended: Ended) -> tuple[str, str]:
    """What became of a picture, and what is wrong with that, '' if nothing."""
    sound = picture.pixels is not None and not picture.vague and not picture.kind.startswith('cut')
    if ended.code:
        name = 'strange' if picture.name.startswith('strange') else ascii(picture.name)[1:5]
        problems = complaints(message(ended.err), name, kind in TOOLS)
        problems += ['it is whole'] * sound
        problems += ['it ended all'] * (kind in ('pretrain', 'cls', 'prepare_images'))
        return 'refused', f'{", ".join(problems)}: {ended.err[-300:]!r}' if problems else ''
    value, log = ended.value, '\n'.join(ascii(line)[1:-1] for line in ended.out.split('\n'))
    if value['good'] < GOOD:
        return 'lost others', f'good pictures were not read: {log[-200:]}'
    in_log = re.search(re.escape(ascii(picture.name)[1:-1]) + r' \((.*)\)', log)
    if reason := value['bad'] or in_log and picture.data is not None and in_log[1]:
        helps = len(reason) > 15 and ' at 0x' not in reason and '\n' not in reason and '<_io' not in reason
        problem = '' if helps else f'no help: {reason!r}'
        return 'named as bad', f'it is whole: {reason}' if sound else problem
    if picture.data is None or picture.name.startswith('.'):
        named = picture.kind == 'folder' or picture.name.startswith('.') or Path(picture.name).stem in log
        return 'passed by', '' if named else 'not named'
    if not value['shape'] and kind in ('visualize', 'visualize folder', 'features'):  # which show no pixels
        return 'read', '' if picture.pixels is not None else 'which is no picture'
    if not value['shape'] or picture.pixels is None:
        return 'decoded' if value['shape'] else 'passed by', f'not named, as {value["shape"]}'
    got = np.frombuffer(bytes.fromhex(value['pixels']), np.uint8).reshape(value['shape']).astype(int)
    tolerance = 20 if kind == 'prepare_images' else 4  # of JPEG, once more
    if got.shape == picture.pixels.shape and np.abs(got - picture.pixels).mean() < tolerance:
        return 'decoded whole', ''
    if picture.vague:
        return 'undetectable', ''
    return 'decoded', f'to other pixels, {got.shape} for {picture.pixels.shape}'


def message(text: str) -> str:
    """That of the exception behind a traceback; of a tool the last line: decoders may speak before."""
    names = 'Value', 'Runtime', 'FileNotFound', 'OS'
    if 'Traceback' not in text:
        return text.strip().rpartition('\n')[2]
    return text[max(text.rfind(f'\n{name}Error: ') for name in names) + 1:]
