"""Pictures of what a model has learned, while it learns."""
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmengine.runner import IterBasedTrainLoop
from mmpretrain.registry import HOOKS
from torch import nn

from cae_mm.checkpoint.loader import encoder_of
from cae_mm.datasets.reproducible import seed_sample
from cae_mm.evaluation.features import CenterView
from cae_mm.evaluation.knn_hook import EncoderHook
from cae_mm.evaluation.protocol import rgb_preprocess
from cae_mm.models import ContextAutoencoder
from cae_mm.visualization.attention import look
from cae_mm.visualization.figure import choose_images, figure_of, load_image, pixels_of
from cae_mm.visualization.reconstruction import draw_masks, in_rows, reconstruct


@contextmanager
def own_numbers(seed: int) -> Iterator[None]:
    """Random numbers from a seed, and afterwards those of before, of Python, numpy and torch on the CPU."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        seed_sample(seed, 0, 0)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@HOOKS.register_module()
class PicturesHook(EncoderHook):
    """Draw some pictures as the model sees them, every few epochs and after the last.

    ``attention``: what the class token of the encoder takes from each patch, and the patches as colours; of
    a ``ContextAutoencoder`` also ``reconstruction``: what it paints under masks. Both go to all backends of
    the visualizer; that of our configs writes ``vis_data/vis_image/NAME_EPOCH.png`` beside the log.
    Pictures and masks are the same each time. Random states and training modes stay as they are, so the
    training is the same with and without this hook; a drawing that fails is a warning.

    For objects and segments there are mmdet's and mmseg's hooks: ``default_hooks.visualization.draw=True``.

    Args:
        images (str | Sequence[str]): files or folders.
        interval (int): epochs between two drawings.
        num (int): pictures at most, chosen at random where there are more.
        seed (int): of the choice of pictures and masks.

    Raises:
        ValueError: for an interval below 1, and, before the training, in one that counts iterations.
        FileNotFoundError: before the training, when there are no pictures.
    """
    failure = 'no pictures'

    def __init__(self, images: str | Sequence[str], interval: int = 10, num: int = 8, seed: int = 0):
        super().__init__(interval)
        self.paths = [Path(path) for path in ([images] if isinstance(images, str) else images)]
        self.num, self.seed = num, seed

    def prepare(self, runner, model: nn.Module) -> None:
        """Read the pictures and draw their masks, with all errors that can be had before a training."""
        if isinstance(runner._train_loop, IterBasedTrainLoop):
            raise ValueError('PicturesHook draws after epochs, and this training counts iterations: take '
                             'default_hooks.visualization.draw=True')
        self.model = model
        self.preprocess, self.masks = rgb_preprocess(self.model.data_preprocessor), None
        backbone = encoder_of(self.model.backbone)
        view = CenterView(tuple(side * backbone.patch_size for side in backbone.grid_size))
        with own_numbers(self.seed):
            files = choose_images(self.paths, self.num)
            self.images = torch.stack([load_image(path, view) for path in files])
            if isinstance(self.model, ContextAutoencoder):
                self.masks = draw_masks(runner.cfg.train_dataloader.dataset, len(files))

    def look(self, runner, epoch: int) -> None:
        """Draw."""
        # Compiled code would be compiled again, for this number of pictures.
        with own_numbers(self.seed), torch.compiler.set_stance('force_eager'):
            rows = dict(attention=look(encoder_of(self.model.backbone), self.preprocess, self.images))
            if self.masks is not None:
                rows['reconstruction'] = in_rows(reconstruct(
                    self.model, self.preprocess, self.images, self.masks))
        for name, content in rows.items():
            runner.visualizer.add_image(name, pixels_of(figure_of(*content)), epoch)
