"""Detections and segments on one's own pictures, by mmdet's and mmseg's models and visualizers."""
import io
from pathlib import Path

import cv2
import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.structures import BaseDataElement, PixelData
from PIL import Image, ImageDraw, ImageFont

from cae_mm.atomic import write_atomically
from cae_mm.checkpoint.files import read_weights
from cae_mm.checkpoint.loader import compare
from cae_mm.datasets.annotations import leaf_datasets
from cae_mm.engine.overrides import apply_options

# The shorter side of what is drawn has at least so many pixels, so that names can be read.
SIDE = 384
ALPHA = 0.5
FONT_SIZE = 14
READING = ('LoadImageFromFile', 'LoadAnnotations')


class DensePredictor:
    """A trained detector or segmentor that predicts on pictures and draws what it found.

    Pictures go through what the config's test data go through. The classes are those that the checkpoint
    was trained with, where it names them. A ValueError for a config of no such model, a RuntimeError when
    the checkpoint is of another.
    """

    def __init__(self, cfg, checkpoint):
        self.scope = cfg.get('default_scope')
        if self.scope not in ('mmdet', 'mmseg') or not cfg.get('test_dataloader'):
            raise ValueError(f'{cfg.filename} finds neither objects nor segments in pictures: take a '
                             'config of detection or segmentation. For an encoder, or a classifier, '
                             'there is tools/visualize.py, for a pre-training tools/reconstruct.py')
        state, meta = read_weights(checkpoint)
        trained = meta.get('dataset_meta', {})
        init_default_scope(self.scope)
        if trained.get('classes'):
            apply_options(cfg, dict(classes=list(trained['classes'])))
        model = MODELS.build(cfg.model)
        if problems := compare(model.state_dict(), state):
            raise RuntimeError(f'{checkpoint} is of another model than that of {cfg.filename}. '
                               f'{problems}. Use the config it was trained with')
        model.load_state_dict(dict(state))
        self.model = revert_sync_batchnorm(model).to(get_device()).eval()
        data = next(leaf_datasets(cfg.test_dataloader.dataset))
        self.meta = DATASETS.build(dict(data, lazy_init=True, pipeline=[])).metainfo | trained
        self.meta['palette'] = [tuple(colour) for colour in self.meta['palette']]
        self.pipeline = Compose(_without_reading(data.pipeline))

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> BaseDataElement:
        """mmdet's or mmseg's data sample for a picture (H, W, 3) uint8, BGR."""
        shape = image.shape[:2]
        data = self.pipeline(dict(img=image, img_path='', img_id=0, img_shape=shape, ori_shape=shape))
        [sample] = self.model.test_step(pseudo_collate([data]))
        return sample.cpu()

    def found(self, sample: BaseDataElement, score_thr: float = 0.3) -> dict[str, float]:
        """How many objects of each class reach the score, or the share of pixels that a class has."""
        if self.scope == 'mmdet':
            instances = sample.pred_instances
            labels = instances.labels[instances.scores > score_thr]
        else:
            labels = sample.pred_sem_seg.data.flatten()
        numbers = labels.bincount()
        order = [i for i in numbers.argsort(descending=True, stable=True).tolist() if numbers[i]]
        total = 1 if self.scope == 'mmdet' else len(labels)
        return {self.meta['classes'][i]: int(numbers[i]) / total for i in order}

    def draw(self, image: np.ndarray, sample: BaseDataElement, path: str | Path,
             score_thr: float = 0.3) -> None:
        """Write an image (H, W, 3) uint8, BGR, with boxes and masks, or with segments and a legend."""
        factor = -(-SIDE // min(image.shape[:2]))
        image = cv2.resize(image[..., ::-1], None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        sample = sample.clone()
        if self.scope == 'mmdet':
            from mmdet.visualization import DetLocalVisualizer as Visualizer
            instances = sample.pred_instances
            instances.bboxes = instances.bboxes * factor
            if 'masks' in instances:
                instances.masks = _enlarged(instances.masks, factor)
            options = dict(pred_score_thr=score_thr)
        else:
            from mmseg.visualization import SegLocalVisualizer as Visualizer
            sample.pred_sem_seg = PixelData(data=_enlarged(sample.pred_sem_seg.data, factor))
            options = dict(with_labels=False)
        visualizer = Visualizer(alpha=ALPHA)
        visualizer.dataset_meta = self.meta
        visualizer.add_datasample('', image, sample, draw_gt=False, **options)
        drawn = Image.fromarray(visualizer.get_image())
        if self.scope == 'mmseg':
            drawn = self._with_legend(drawn, self.found(sample))
        picture = io.BytesIO()
        picture.name = str(path)  # by which Pillow chooses the format
        drawn.save(picture)
        write_atomically(picture.getvalue(), path)

    def _with_legend(self, drawn: Image.Image, found: dict[str, float]) -> Image.Image:
        import matplotlib  # late: most trainings draw nothing
        font = ImageFont.truetype(f'{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf', FONT_SIZE)
        line, colours = FONT_SIZE + 8, dict(zip(self.meta['classes'], self.meta['palette'], strict=True))
        lines = {name: f'{name}: {share:.1%}' for name, share in found.items()}
        width = drawn.width + 2 * line + max(round(font.getlength(text)) for text in lines.values())
        canvas = Image.new('RGB', (width, max(drawn.height, line * (len(lines) + 1))), 'white')
        canvas.paste(drawn)
        draw, left = ImageDraw.Draw(canvas), drawn.width + line // 2
        for i, (name, text) in enumerate(lines.items()):
            top = line * i + line // 2
            draw.rectangle((left, top, left + FONT_SIZE, top + FONT_SIZE), tuple(colours[name]), 'black')
            draw.text((left + line, top + FONT_SIZE // 2), text, 'black', font, anchor='lm')
        return canvas


def _without_reading(steps: list) -> list:
    """Leave the reading of pictures and annotations out of a pipeline, at any depth."""
    kept = []
    for step in steps:
        if isinstance(step, list):
            step = _without_reading(step)
        elif step.type.split('.')[-1] in READING:
            continue
        elif 'transforms' in step:
            step = dict(step, transforms=_without_reading(step.transforms))
        if step:
            kept.append(step)
    return kept


def _enlarged(masks: torch.Tensor, factor: int) -> torch.Tensor:
    return masks.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
