#!/usr/bin/env python
"""Draw what a pre-trained model paints under the mask of some images."""
import argparse
import random
from pathlib import Path

import torch
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from mmpretrain.registry import MODELS, TRANSFORMS

import cae_mm  # noqa: F401  (fills the registries)
from cae_mm.checkpoint.loader import read_checkpoint
from cae_mm.engine import launch
from cae_mm.evaluation.features import CenterView
from cae_mm.transforms import LoadRGBImage
from cae_mm.visualization import draw, reconstruct

SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    launch.add_common_options(parser)
    parser.add_argument('checkpoint', help='checkpoint of the whole pre-training model')
    parser.add_argument('--images', nargs='+', type=Path, required=True, help='files or folders')
    parser.add_argument('--out', required=True, help='PNG file to write')
    parser.add_argument('--num', type=int, default=8, help='number of images')
    parser.add_argument('--seed', type=int, default=0, help='of the choice of images and masks')
    return parser.parse_args()


def choose_images(paths: list[Path], num: int) -> list[Path]:
    """Take ``num`` random files, from the folders among ``paths`` at any depth.

    Raises:
        FileNotFoundError: when there are none.
    """
    files = [path for path in paths if path.is_file()]
    files += [file for path in paths for file in sorted(path.rglob('*'))
              if file.suffix.lower() in SUFFIXES]
    if not files:
        raise FileNotFoundError(f'no images ({", ".join(SUFFIXES)}) in '
                                f'{", ".join(map(str, paths))}')
    return random.sample(files, min(num, len(files)))


def load(path: Path, view: CenterView) -> torch.Tensor:
    """Read one image as (3, H, W) uint8.

    Raises:
        ValueError: when it cannot be read.
    """
    results = dict(img_path=str(path))
    if LoadRGBImage()(results) is None:
        raise ValueError(f'{path} is unreadable: {results["load_error"]}')
    return torch.from_numpy(view(results)['img'].copy()).permute(2, 0, 1)


def main() -> None:
    """Draw as the command line says."""
    args = parse_args()
    cfg = launch.load_config(args)
    init_default_scope('mmpretrain')
    set_random_seed(args.seed)
    model = MODELS.build(cfg.model)
    model.load_state_dict(read_checkpoint(args.checkpoint)['state_dict'])
    model.to(get_device())

    pipeline = cfg.train_dataloader.dataset.dataset.pipeline
    mask = TRANSFORMS.build(next(step for step in pipeline if 'Mask' in step['type']))
    view = CenterView(tuple(side * model.backbone.patch_size for side in model.backbone.grid_size))
    images = torch.stack([load(path, view) for path in choose_images(args.images, args.num)])
    masks = torch.stack([mask({})['mask'] for _ in images])
    draw(reconstruct(model, model.data_preprocessor, images, masks), args.out)
    print(f'{len(images)} images: {args.out}')


if __name__ == '__main__':
    main()
