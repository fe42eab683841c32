#!/usr/bin/env python
"""Detection and segmentation in minutes: the demo's encoder against the same network from scratch.

    python demo/demo_dense.py

Begins with the data and the tokenizer of demo/demo.py, in the same folder, where they are not there yet.
Then CAE is pre-trained on its pictures of single digits, three times as long as there, and two models learn
from 64 labelled scenes.
Every step is a command that is printed before it runs; a step whose result exists is not repeated.
"""
import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from PIL import Image
from steps import (
    PRETRAIN,
    ROOT,
    TOKENIZER_VIEWS,
    Step,
    Steps,
    change,
    count,
    precision,
    print_table,
    train_step,
    train_tokenizer,
)
from terminal import NATURAL, POSITIVE, Parser, run

from cae_mm.engine import launch
from cae_mm.visualization import DensePredictor, Section, draw_curves, write_report
from cae_mm.visualization.curves import read_scalars, series
from cae_mm.visualization.figure import save_figure

STARTS = {'scratch': 'from scratch', 'cae': 'from CAE'}
NUM_PICTURES = 4
MIN_SCORE, MIN_PIXELS = 0.5, 15  # of an object; of a segment that gets a name
LABELLED = 64  # of the 320 scenes for training
PRETRAIN_VIEWS = 336_000

LEAD = """Two models that find digits, each trained twice on the same {labelled} labelled pictures: once
with an encoder that CAE pre-trained on {single:,} pictures of single digits without labels, and once from
scratch."""
RESULTS = """A start from CAE instead of from scratch took {changed}.

On {val} pictures that were in no training. Between the two trainings of a model nothing
differs but the start of the encoder, and that pre-trained layers learn the slower the nearer they are
to the pixels, as is usual; without pre-training all layers learn at the full rate. With other random
numbers a result differs by some points."""
CURVES = 'The same numbers while the models were trained.'
OBJECTS = f"""The first {NUM_PICTURES} of these pictures, with the objects that have a score of at
least {MIN_SCORE}."""
SEGMENTS = f"""Each pixel gets one of ten digits or the background, which is not coloured here. A name
stands at each segment of at least {MIN_PIXELS} pixels. The soft edge of a stroke is no part of the
truth."""


@dataclass
class Task:
    """A model, the layout of the demo's data that it is trained on, and its numbers."""
    model: str
    config: str
    layout: str
    metrics: dict[str, str]  # the column of the report -> the name in the log
    percent: int  # what 1 in the log is
    length: int  # epochs or iterations, as the config counts
    few: tuple[str, ...] = ()  # settings for the few labelled pictures

    def work_dir(self, out: Path, start: str) -> Path:
        """Directory of the training from one of ``STARTS``."""
        return out / f'{self.layout}_{start}'

    def step(self, data: Path, out: Path, start: str, pretrained: Path, length: int | None,
             seed: int) -> Step:
        """The training from one of ``STARTS``, continued where an earlier call was stopped.

        Args:
            data (Path): directory of the layouts.
            out (Path): directory of the trainings.
            start (str): see ``STARTS``.
            pretrained (Path): checkpoint of CAE.
            length (int, optional): another one than the task's.
            seed (int): of order, crops and the weights that are not CAE's.
        """
        cfg = Config.fromfile(ROOT / self.config)
        unit = 'epoch' if 'max_epochs' in cfg.train_cfg else 'iter'
        options = [f'randomness.seed={seed}', f'train_dataloader.dataset.dataset.indices={LABELLED}',
                   *([f'max_{unit}s={length}'] if length else self.few)]
        if length and unit == 'iter':  # the warm-up is no longer
            options.append(f'param_scheduler.0.end={min(cfg.param_scheduler[0].end, length + 1)}')
        if start == 'scratch':
            pretrained = 'none'
            options.append('optim_wrapper.paramwise_cfg.layer_decay_rate=1')
        return Step(f'Train {self.model} {STARTS[start]}', [
            'tools/train.py', self.config, '--work-dir', self.work_dir(out, start), '--data-root',
            data / self.layout, '--pretrained', pretrained, '--resume', *precision(),
            '--cfg-options', *options], self.work_dir(out, start) / f'{unit}_{length or self.length}.pth')

    def results(self, out: Path, start: str) -> dict[str, float]:
        """The last numbers of a training, in percent."""
        records = read_scalars(self.work_dir(out, start))
        return {column: self.percent * series(records, name)[1][-1]
                for column, name in self.metrics.items()}


TASKS = {
    'objects': Task('Mask R-CNN', 'configs/det/mask_rcnn_cae_vitt_demo.py', 'coco',
                    {'box AP': 'coco/bbox_mAP', 'mask AP': 'coco/segm_mAP'}, 100, 30,
                    ('max_epochs=30', 'train_cfg.val_interval=10', 'param_scheduler.1.milestones=[25]')),
    'segments': Task('UperNet', 'configs/seg/upernet_cae_vitt_demo.py', 'ade', {'mIoU': 'mIoU'}, 1, 600)}


@dataclass
class Shape:
    """A digit in a picture: its pixels (H, W) bool, its box (x, y, width, height), what is known of it."""
    digit: int
    mask: np.ndarray
    box: tuple[float, float, float, float]
    name: str


def true_objects(annotations: list[dict], size: tuple[int, int]) -> list[Shape]:
    """The objects of a picture of ``size`` (H, W), from their entries in a COCO file."""
    shapes = []
    for entry in annotations:
        outlines = [np.int32(outline).reshape(-1, 2) for outline in entry['segmentation']]
        mask, digit = cv2.fillPoly(np.zeros(size, np.uint8), outlines, 1), entry['category_id'] - 1
        shapes.append(Shape(digit, mask > 0, entry['bbox'], str(digit)))
    return shapes


def found_objects(sample: BaseDataElement) -> list[Shape]:
    """The objects that a detector found, if it is sure enough of them."""
    found = sample.pred_instances
    shapes = []
    for digit, mask, box, score in zip(found.labels.tolist(), found.masks.numpy(), found.bboxes.tolist(),
                                       found.scores.tolist(), strict=True):
        if score >= MIN_SCORE:
            left, top, right, bottom = box
            shapes.append(Shape(digit, mask, (left, top, right - left, bottom - top),
                                f'{digit}  {score:.2f}'))
    return shapes


def segments(labels: np.ndarray) -> list[Shape]:
    """The connected pixels of each digit in a label map (H, W): 0 is the background, 1 + i digit i."""
    shapes = []
    for digit in range(10):
        number, parts, stats, _ = cv2.connectedComponentsWithStats(np.uint8(labels == digit + 1))
        for part in range(1, number):
            *box, pixels = stats[part].tolist()
            shapes.append(Shape(digit, parts == part, box, str(digit) if pixels >= MIN_PIXELS else ''))
    return shapes


def load_truth(layout: str, data: Path) -> list[tuple[np.ndarray, list[Shape]]]:
    """The first pictures (H, W, 3) BGR of a layout's validation part, and what they show."""
    pictures = []
    if layout == 'coco':
        content = json.loads((data / 'annotations/instances_val2017.json').read_text())
        for image in content['images'][:NUM_PICTURES]:
            mine = [entry for entry in content['annotations'] if entry['image_id'] == image['id']]
            pictures.append((cv2.imread(str(data / 'val2017' / image['file_name'])),
                             true_objects(mine, (image['height'], image['width']))))
    else:
        for path in sorted((data / 'images/validation').glob('*.jpg'))[:NUM_PICTURES]:
            labels = Image.open(data / 'annotations/validation' / f'{path.stem}.png')
            pictures.append((cv2.imread(str(path)), segments(np.int32(labels) - 1)))
    return pictures


def draw_scenes(titles: list[str], rows: list[tuple[np.ndarray, list[list[Shape]]]], boxes: bool,
                path: Path) -> None:
    """Write a PNG with a row for each picture (H, W, 3) BGR, and a column for each list of shapes."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    figure = Figure(figsize=(3 * len(titles), 3 * len(rows) + 0.3), layout='constrained')
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=12)
    for line, (image, columns) in zip(axes, rows, strict=True):
        for axis, shapes in zip(line, columns, strict=True):
            axis.imshow(image[..., ::-1])
            axis.axis('off')
            for shape in shapes:
                colour = colormaps['tab10'](shape.digit)
                axis.imshow(shape.mask[..., None] * [*colour[:3], 0.7])
                x, y, width, height = shape.box
                if boxes:
                    axis.add_patch(Rectangle((x - 0.5, y - 0.5), width, height, fill=False, ec=colour))
                if shape.name:
                    axis.text(x, y - 2, shape.name, color='white', fontsize=9,
                              bbox=dict(fc=colour, ec='none', pad=1.5))
    save_figure(figure, path)


def draw_task(kind: str, data: Path, out: Path, checkpoints: dict[str, Path]) -> Path:
    """Draw what is true, and what both trainings of a task find; return the picture."""
    task, path = TASKS[kind], out / f'{kind}.png'
    images, columns = zip(*load_truth(task.layout, data / task.layout), strict=True)
    columns = [columns]
    for checkpoint in checkpoints.values():
        predict = DensePredictor(launch.load_config(argparse.Namespace(
            config=str(ROOT / task.config), data_root=None, cfg_options=None, launcher='none',
            work_dir=None)), checkpoint)
        samples = [predict(image) for image in images]
        columns.append([found_objects(sample) if kind == 'objects' else
                        segments(sample.pred_sem_seg.data[0].numpy()) for sample in samples])
    draw_scenes(['truth', *(STARTS[start] for start in checkpoints)],
                [*zip(images, zip(*columns, strict=True), strict=True)], kind == 'objects', path)
    return path


def result_table(out: Path) -> list[list[str]]:
    """The numbers of all trainings, and how much pre-training is ahead."""
    scratch, cae = ({column: number for task in TASKS.values()
                     for column, number in task.results(out, start).items()} for start in STARTS)
    return [['', *scratch],
            *([name, *(f'{number:.1f}' for number in numbers.values())]
              for name, numbers in zip(STARTS.values(), (scratch, cae), strict=True)),
            ['difference', *(f'{cae[column] - scratch[column]:+.1f}' for column in scratch)]]


def report(steps: Steps, out: Path, table: list[list[str]], pictures: dict[str, Path]) -> None:
    """Write ``report_dense.html`` to ``out``."""
    data = steps.out / 'data'
    number = dict(labelled=LABELLED, single=count(data / 'imagenet/train'),
                  val=count(data / 'coco/val2017'))
    draw_curves(
        {name: [task.work_dir(out, start) for task in TASKS.values()] for start, name in STARTS.items()},
        out / 'dense_curves.png', [name for task in TASKS.values() for name in task.metrics.values()])
    write_report(out / 'report_dense.html', 'CAE: detection and segmentation in minutes',
                 LEAD.format(**number), [
        Section('With and without pre-training', RESULTS.format(changed=change(table), **number), table),
        Section('How the models learn', CURVES, figure=out / 'dense_curves.png'),
        Section('Objects that Mask R-CNN finds', OBJECTS, figure=pictures['objects']),
        Section('Segments that UperNet finds', SEGMENTS, figure=pictures['segments']),
        steps.section()])


def main() -> None:
    """Run all steps."""
    parser = Parser(description=__doc__.split('\n')[0])
    parser.add_argument('--out', type=Path, default=Path('demo_out'), help='folder of the demo, default: '
                        'demo_out; what demo/demo.py made there of the embedded data is used')
    parser.add_argument('--force', action='store_true', help='repeat what is done already')
    parser.add_argument('--views', type=POSITIVE, nargs=2, default=(TOKENIZER_VIEWS, PRETRAIN_VIEWS),
                        metavar=('TOKENIZER', 'CAE'), help='images that the pre-trainings see')
    parser.add_argument('--length', type=POSITIVE, nargs=2, default=(None, None),
                        metavar=('EPOCHS', 'ITERATIONS'), help='of detection and of segmentation')
    parser.add_argument('--seed', type=NATURAL, default=0, help='of all but the tokenizer; what another '
                        'one than 0 gives is in a folder of its own, seed1 and so on')
    args = parser.parse_args()
    steps = Steps(args.out.resolve(), args.force)
    data, out = steps.out / 'data', steps.out / f'seed{args.seed}' if args.seed else steps.out
    tokenizer = train_tokenizer(steps, None, args.views[0])
    pretrained = steps.run(train_step(
        'Pre-train CAE for longer', PRETRAIN, out / 'pretrain_long', data / 'imagenet', args.views[1], 32,
        (f'tokenizer={tokenizer}', f'randomness.seed={args.seed}')))
    checkpoints = {kind: {start: steps.run(task.step(data, out, start, pretrained, length, args.seed))
                          for start in STARTS}
                   for (kind, task), length in zip(TASKS.items(), args.length, strict=True)}
    table = result_table(out)
    report(steps, out, table,
           {kind: draw_task(kind, data, out, found) for kind, found in checkpoints.items()})
    print()
    print_table(table)
    print(f'\n{steps.seconds():.0f} s of computing. Open {out / "report_dense.html"}')


if __name__ == '__main__':
    run(main)
