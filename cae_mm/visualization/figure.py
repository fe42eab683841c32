"""Pictures in rows, and where they come from."""
import io
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as F

from cae_mm.atomic import write_atomically
from cae_mm.disk import SUFFIXES, list_images, printable
from cae_mm.transforms import LoadRGBImage

DPI = 110  # of figures


def choose_images(paths: Sequence[Path], num: int) -> list[Path]:
    """The files among ``paths`` and in its folders, at any depth; at random where over ``num``."""
    if num < 1:
        raise ValueError(f'{num} pictures: choose 1 or more')
    files = [path for path in paths if path.exists() and not path.is_dir()]
    files += [path / name for path in paths if path.is_dir() for name in list_images(path)]
    if not files:
        raise FileNotFoundError(f'no images ({", ".join(SUFFIXES)}) in '
                                f'{", ".join(map(str, paths))}')
    return files if len(files) <= num else random.sample(files, num)


def load_image(path: Path, view: Callable[[dict], dict]) -> Tensor:
    """Read one image as (3, H, W) uint8, behind a ``view`` as ``CenterView``, or raise a ValueError."""
    results = dict(img_path=str(path))
    if LoadRGBImage()(results) is None:
        raise ValueError(printable(f'{path} is unreadable: {results["load_error"]}'))
    return torch.from_numpy(view(results)['img'].copy()).permute(2, 0, 1)


class WholeView:
    """Resize (bicubic), nearly keeping the shape: both sides become multiples of the patch.

    ``side`` is that of the shorter side, about, in pixels; a ValueError when it is shorter than a patch.
    """

    def __init__(self, side, patch_size):
        if side < patch_size:
            raise ValueError(f'a side of {side} pixels is shorter than a patch of {patch_size}')
        self.side, self.patch_size = side, patch_size

    def __call__(self, results: dict) -> dict:
        """Replace ``img`` (H, W, 3) uint8 by the view."""
        shape = results['img'].shape[:2]
        size = [round(length * self.side / min(shape) / self.patch_size) * self.patch_size
                for length in shape]
        if size != list(shape):
            image = F.resize(Image.fromarray(results['img']), size, F.InterpolationMode.BICUBIC)
            results['img'] = np.asarray(image)
        return results


def draw_rows(titles: Sequence[str], rows: Sequence[Sequence[Tensor]], path: str | Path) -> None:
    """Write the figure of ``figure_of`` as a PNG."""
    save_figure(figure_of(titles, rows), path)


def figure_of(titles: Sequence[str], rows: Sequence[Sequence[Tensor]]):
    """A matplotlib figure, without pyplot, with a titled column per kind of picture.

    ``rows`` are of pictures (H, W, 3) in [0, 1], and of maps (h, w), drawn from 0, black, to their 99th
    percentile; those of a row have the same shape.
    """
    from matplotlib.figure import Figure  # late: most trainings draw nothing
    heights = [row[0].shape[0] / row[0].shape[1] for row in rows]  # of a picture one wide
    figure = Figure(figsize=(2 * len(titles), 2 * sum(heights) + 0.4), layout='constrained')
    axes = figure.subplots(len(rows), len(titles), squeeze=False, height_ratios=heights)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=11)
    for axis, picture in zip(axes.flat, (picture for row in rows for picture in row), strict=True):
        axis.imshow(picture.numpy(), interpolation='nearest', cmap='inferno', vmin=0,
                     vmax=np.percentile(picture, 99))
        axis.axis('off')
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, hspace=0, wspace=0)
    return figure


def pixels_of(figure) -> np.ndarray:
    """A figure as (H, W, 3) uint8 RGB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_figure(figure, path: str | Path) -> None:
    """Write a figure in the format of the file's suffix, all of it or nothing."""
    picture = io.BytesIO()
    figure.savefig(picture, format=Path(path).suffix[1:] or 'png', dpi=DPI)
    write_atomically(picture.getvalue(), path)
