"""Strange pictures in the data of every task: decoded whole, or named as bad with a reason that helps."""
import io
import json
import os
import shutil
from argparse import Namespace
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from cae_mm.datasets.annotations import check_annotations, leaf_datasets
from cae_mm.engine import launch

from . import pictures, toys
from .checkpoints import complaints
from .children import Ended, run
from .report import Case

SIDE = 40  # of the good ones
GOOD = 12  # beside the strange one, so that one bad file is less than a tenth
DATA = {'pretrain': 'pixels', 'cls': 'classes', 'det': 'det/mask_rcnn_cae_vitt_demo', 'seg': 'seg/upernet_cae_vitt_demo'}
TOOLS = 'prepare_images', 'visualize', 'visualize folder', 'features'


def prepare(base: Path) -> None:
    """Nothing beside the toys."""


def run_case(case: Case, base: Path, _) -> None:
    """Put a strange picture among good ones and let one task read them all."""
    case.kind = str(case.rng.choice([*DATA, *TOOLS]))
    picture = pictures.make(case.rng)
    folder = case.folder / 'data'
    in_folder = case.kind not in ('det', 'seg')  # which list their pictures by name, or by suffix
    if not in_folder:
        picture.name = f'strange{Path(picture.name).suffix}' if case.kind == 'det' else 'strange.jpg'
    lay_out(folder, picture, case.kind)
    if case.kind in DATA:
        ended = run(lambda: read_all(case.kind, base, folder, picture.name), case.folder)
    else:
        ended = run(lambda: TOOL[case.kind](base, folder, picture), case.folder)
    case.harm(ended)
    problem, outcome = judge(case.kind, picture, ended)
    case.count(outcome, picture.kind)
    case.check(not problem, f'{picture.kind} ({ascii(picture.name)[:60]}): {problem}')


def lay_out(folder: Path, picture: pictures.Picture, kind: str) -> None:
    """A folder in the layout of the task, with the strange picture in its training part."""
    rng = np.random.default_rng(0)
    place = folder / {'seg': 'images/training', 'det': 'train'}.get(kind, 'train/a')
    place.mkdir(parents=True)
    (folder / 'train/b').mkdir(parents=True, exist_ok=True)
    for i in range(GOOD):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(place / f'{i:02d}.jpg')
        if kind not in ('det', 'seg') and i < 4:
            shutil.copy(place / f'{i:02d}.jpg', folder / 'train/b')
    pictures.put(picture, place)
    if kind == 'seg':
        (folder / 'annotations/training').mkdir(parents=True)
        for name in (*(f'{i:02d}' for i in range(GOOD)), 'strange'):
            height, width = picture.pixels.shape[:2] if name == 'strange' and picture.pixels is not None else (SIDE, SIDE)
            Image.fromarray(np.ones((height, width), np.uint8)).save(folder / f'annotations/training/{name}.png')
    elif kind == 'det':
        names = [*(f'{i:02d}.jpg' for i in range(GOOD)), picture.name]
        sizes = [(SIDE, SIDE)] * GOOD + [picture.pixels.shape[:2] if picture.pixels is not None else (SIDE, SIDE)]
        box = dict(category_id=1, bbox=[1, 1, 6, 6], area=36, iscrowd=0, segmentation=[[1, 1, 7, 1, 7, 7]])
        (folder / 'annotations').mkdir()
        for part in ('train', 'val'):
            (folder / f'annotations/instances_{part}.json').write_text(json.dumps(dict(
                images=[dict(id=i, file_name=name, height=size[0], width=size[1])
                        for i, (name, size) in enumerate(zip(names, sizes, strict=True))],
                annotations=[dict(box, id=i, image_id=i) for i in range(len(names))],
                categories=[dict(id=1, name='one')])))
    else:
        shutil.copytree(folder / 'train/b', folder / 'val/a')
        shutil.copytree(folder / 'train/b', folder / 'val/b')


def read_all(kind: str, base: Path, folder: Path, name: str) -> dict:
    """Read a training's files by the first steps of its pipeline: the strange one's fate, and how many are read."""
    own = base / f'{DATA[kind]}.py'
    options = dict(classes=['one']) if kind in ('det', 'seg') else {}
    log = io.StringIO()
    with redirect_stdout(log), redirect_stderr(log):
        cfg = launch.load_config(Namespace(
            config=str(own if own.exists() else toys.ROOT / f'configs/{DATA[kind]}.py'), data_root=[str(folder)],
            cfg_options=options, launcher='none', work_dir='work'))
        init_default_scope(cfg.default_scope)
        check_annotations(cfg, 'train')
        for leaf in leaf_datasets(cfg.train_dataloader.dataset):
            leaf.pipeline = [step for step in leaf.pipeline if step['type'].split('.')[-1].startswith('Load')]
        dataset = DATASETS.build(Config(cfg.train_dataloader.dataset.to_dict())._cfg_dict)
        samples = [dataset[i] for i in range(len(dataset))]
        bad = dataset.bad_files()
    found = [sample['img'] for sample in samples if os.path.basename(sample['img_path']) == name]
    if found and kind != 'pretrain':
        found = [image[..., ::-1] for image in found]
    return dict(bad={os.path.basename(path): reason for path, reason in bad.items()},
                shape=found[0].shape if found else None, pixels=found[0].tobytes().hex() if found else '',
                good=len({sample['img_path'] for sample in samples}) - len(found[:1]), log=log.getvalue()[-3000:])


def judge(kind: str, picture: pictures.Picture, ended: Ended) -> tuple[str, str]:
    """What is wrong with what became of a picture ('' if nothing), and what became of it."""
    if ended.code:
        if picture.pixels is not None and not picture.vague and not picture.kind.startswith('cut'):
            return f'refused, but it is whole: {ended.err[-300:]!r}', 'refused'
        name = 'strange' if picture.name.startswith('strange') else ascii(picture.name)[1:5]
        problems = complaints(last_line(ended.err) if kind in DATA else ended.err, name, kind in TOOLS)
        stops = kind in ('pretrain', 'cls', 'prepare_images')
        return ('ended the whole run: ' * stops + ', '.join(problems) + f': {ended.err[-300:]!r}'
                if problems or stops else ''), 'refused'
    value = ended.value
    if value.get('good', GOOD) < GOOD:
        return f'{GOOD - value["good"]} good pictures were not read', 'lost others'
    if reason := next((why for path, why in value['bad'].items() if os.path.basename(path) == picture.name), ''):
        if picture.pixels is not None and not picture.vague and not picture.kind.startswith('cut'):
            return f'named as bad, but it is whole: {reason}', 'named as bad'
        helps = len(reason) > 20 and ' at 0x' not in reason and '\n' not in reason and '<_io' not in reason
        return '' if helps else f'a reason that does not help: {reason!r}', 'named as bad'
    if not value['shape']:
        passed = picture.data is None or picture.name.startswith('.')
        named = picture.name.startswith('.') or Path(picture.name).stem in value.get('log', '')
        return '' if passed and named else 'neither decoded nor named', 'passed by'
    if picture.pixels is None:
        return f'decoded as {value["shape"]}, which it is not', 'decoded'
    got = np.frombuffer(bytes.fromhex(value['pixels']), np.uint8).reshape(value['shape']).astype(int)
    if got.shape == picture.pixels.shape and np.abs(got - picture.pixels).mean() < (20 if kind == 'prepare_images' else 4):
        return '', 'decoded whole'
    if picture.vague:
        return '', 'undetectable: other pixels in a format without checksums'
    return f'decoded to other pixels, {got.shape} for {picture.pixels.shape}', 'decoded'


def last_line(text: str) -> str:
    """The message of a traceback's exception."""
    start = max(text.rfind(f'\n{name}') for name in ('ValueError: ', 'RuntimeError: ', 'FileNotFoundError: ', 'OSError: '))
    return text[start + 1:].strip()


# --- tools ----------------------------------------------------------------------------------------

def _prepare_images(base, folder, picture):
    log = io.StringIO()
    with redirect_stdout(log), redirect_stderr(log):
        toys.tool('demo/prepare_images.py', folder / 'train/a', 'out')
    text = log.getvalue()
    written = sorted(Path('out').rglob('*.jpg'))
    bad = {picture.name: text.split('(', 1)[1]} if 'unreadable' in text else {}
    extra = len(written) - GOOD
    others = [np.asarray(Image.open(path)) for path in written]
    pixels = [image for image in others if image.shape[:2] != (SIDE, SIDE)] if extra else []
    return dict(bad=bad, good=min(len(written), GOOD), log=text, shape=pixels[0].shape if pixels else (
        picture.pixels.shape if extra else None), pixels=(pixels[0] if pixels else picture.pixels).tobytes().hex()
        if extra else '')


def _visualize(base, folder, picture):
    toys.tool('visualize.py', base / 'pixels.py', 'none', '--images', folder / 'train/a' / picture.name, '--out', 'out.png')
    return _seen(picture)


def _visualize_folder(base, folder, picture):
    toys.tool('visualize.py', base / 'pixels.py', 'none', '--images', folder / 'train/a', '--num', 20, '--out', 'out.png')
    return _seen(picture)


def _features(base, folder, picture):
    toys.tool('linear_probe.py', base / 'pixels.py', 'none', '--data', folder, '--out', 'out.json')
    return _seen(picture)


def _seen(picture):
    """A tool that ends well has read the picture; what it made of it is not seen."""
    there = picture.data is not None
    return dict(bad={}, shape=picture.pixels.shape if there and picture.pixels is not None else [0] * there,
                pixels=picture.pixels.tobytes().hex() if there and picture.pixels is not None else '', log=picture.name)


TOOL = {'prepare_images': _prepare_images, 'visualize': _visualize, 'visualize folder': _visualize_folder,
        'features': _features}
