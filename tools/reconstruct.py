#!/usr/bin/env python
"""Draw what a pre-trained model paints under the mask of some images."""
import argparse
from pathlib import Path

from options import add_config_options
from terminal import NATURAL, POSITIVE, Parser, new_file, run


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(description=__doc__)
    add_config_options(parser)
    parser.add_argument('checkpoint', help='checkpoint of the whole pre-training model')
    parser.add_argument('--images', nargs='+', type=Path, required=True, help='files or folders')
    parser.add_argument('--out', type=new_file('.png'), required=True, help='PNG file to write')
    parser.add_argument('--num', type=POSITIVE, default=8, help='number of images')
    parser.add_argument('--seed', type=NATURAL, default=0, help='of the choice of images and masks')
    return parser.parse_args()


def main() -> None:
    """Draw as the command line says."""
    args = parse_args()

    import torch
    from mmengine.device import get_device
    from mmengine.registry import init_default_scope
    from mmengine.runner import set_random_seed
    from mmpretrain.registry import MODELS

    from cae_mm.checkpoint.files import read_weights
    from cae_mm.checkpoint.loader import compare
    from cae_mm.engine import launch
    from cae_mm.evaluation.features import CenterView
    from cae_mm.visualization import (
        choose_images,
        draw_masks,
        draw_rows,
        in_rows,
        load_image,
        reconstruct,
    )
    cfg = launch.load_config(args)
    if not cfg.model.type.endswith('ContextAutoencoder'):
        raise ValueError(f'{args.config} paints nothing under a mask: take a config of pre-training')
    init_default_scope('mmpretrain')
    set_random_seed(args.seed)
    model = MODELS.build(cfg.model)
    state, _ = read_weights(args.checkpoint)
    if problems := compare(model.state_dict(), state):
        raise ValueError(f'{args.checkpoint} is of another model than that of {args.config}. {problems}')
    model.load_state_dict(dict(state))
    model.to(get_device())

    view = CenterView(tuple(side * model.backbone.patch_size for side in model.backbone.grid_size))
    images = torch.stack([load_image(path, view) for path in choose_images(args.images, args.num)])
    masks = draw_masks(cfg.train_dataloader.dataset, len(images))
    draw_rows(*in_rows(reconstruct(model, model.data_preprocessor, images, masks)), args.out)
    print(f'{len(images)} images: {args.out}')


if __name__ == '__main__':
    run(main)
