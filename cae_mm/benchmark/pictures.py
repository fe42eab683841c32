"""What the models of a benchmark see and find, on the same pictures side by side."""
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image

from cae_mm.benchmark.cells import Cell
from cae_mm.disk import list_images
from cae_mm.evaluation import protocol
from cae_mm.visualization import (
    DensePredictor,
    WholeView,
    choose_images,
    class_attention,
    draw_rows,
    load_image,
    patch_features,
    pca_colours,
)
from cae_mm.visualization.curves import draw_lines
from cae_mm.visualization.figure import save_figure

PICTURES = 4


def draw_losses(records: Sequence[dict], path: Path) -> Path | None:
    """A panel for each training task with the losses of all models and seeds; None without any."""
    tasks = {}
    for record in records:
        if 'loss' in record['curves']:
            tasks.setdefault(record['task'], []).append((record['model'], *record['curves']['loss']))
    if not tasks:
        return None
    draw_lines(tasks, path)
    return path


@torch.no_grad()
def draw_encoders(cells: Sequence[Cell], folder: Path, out: Path) -> dict[str, Path]:
    """What the patches mean to each encoder, of a cell each, and what its class token looks at.

    PNG files, of pictures in ``folder``, by 'patches' and, of models that have a class token, 'attention'.
    """
    random.seed(0)
    chosen = choose_images([folder], PICTURES)
    columns, attended, shown = {}, {}, []
    for cell in cells:
        backbone, preprocess = protocol.load_encoder(cell.source, cell.model.weights, seed=cell.seed)
        view = WholeView(min(backbone.grid_size) * backbone.patch_size, backbone.patch_size)
        pictures = [load_image(path, view) for path in chosen]
        shown = shown or [picture.permute(1, 2, 0) / 255 for picture in pictures]
        inputs = [preprocess({'inputs': picture[None]})['inputs'] for picture in pictures]
        columns[cell.model.label] = pca_colours([patch_features(backbone, x)[0].cpu() for x in inputs])
        if backbone.has_cls_token:
            attended[cell.model.label] = [class_attention(backbone, x)[0].mean(0).cpu() for x in inputs]
    drawn = {}
    for name, found in (('patches', columns), ('attention', attended)):
        if found:
            drawn[name] = out / f'{name}.png'
            draw_rows(['picture', *found], [*zip(shown, *found.values(), strict=True)], drawn[name])
    return drawn


def draw_predictions(cells: Sequence[Cell], folder: Path, out: Path) -> Path:
    """What the trained models of a task find in pictures of ``folder``, a column for each, as a PNG."""
    names = sorted(list_images(folder))[:PICTURES]
    figure = Figure(figsize=(3.4 * len(cells), 2.6 * len(names) + 0.3), layout='constrained')
    axes = figure.subplots(len(names), len(cells), squeeze=False)
    part = out.with_suffix('.part.png')
    for column, cell in enumerate(cells):
        work_dir = cell.folder / 'run'
        predict = DensePredictor(cell.config, work_dir / (work_dir / 'last_checkpoint').read_text().strip())
        axes[0, column].set_title(cell.model.label, fontsize=12)
        for row, name in enumerate(names):
            image = load_image(folder / name, dict).permute(1, 2, 0).flip(-1).contiguous().numpy()
            predict.draw(image, predict(image), part)
            axes[row, column].imshow(Image.open(part).convert('RGB'))
            axes[row, column].axis('off')
    part.unlink()
    save_figure(figure, out)
    return out
