#!/usr/bin/env python
"""Draw what an encoder looks at in pictures of any shape, and how it sees their patches.

A row per picture: the picture; what its class token takes from each patch, the mean of all heads; of
an attentive probe also what its query takes; and the three principal components of the patches of
all pictures together, as red, green and blue: patches of like colour are alike to the encoder.
"""
import argparse
import random
from pathlib import Path

from options import add_encoder_options
from terminal import NATURAL, POSITIVE, Parser, new_file, number, run


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_encoder_options(parser)
    parser.add_argument('--images', nargs='+', type=Path, required=True, help='files or folders')
    parser.add_argument('--out', type=new_file('.png'), required=True, help='PNG file to write')
    parser.add_argument('--num', type=POSITIVE, default=8, help='number of pictures')
    parser.add_argument('--seed', type=NATURAL, default=0, help='of the choice of pictures')
    parser.add_argument('--size', type=POSITIVE, help='shorter side of the pictures in pixels, default: as '
                        'the encoder was trained; larger ones give finer maps')
    parser.add_argument('--layer', type=number(int, -1), default=-1,
                        help='block to look into, from 0; -1: the last')
    parser.add_argument('--heads', action='store_true', help='draw each attention head, too')
    return parser.parse_args()


def choose_view(backbone, size: int | None):
    """How pictures are brought to a size that the encoder takes.

    Raises:
        ValueError: for a size with an encoder that takes only one.
    """
    from cae_mm.evaluation.features import CenterView
    from cae_mm.visualization import WholeView
    trained = tuple(side * backbone.patch_size for side in backbone.grid_size)
    if not backbone.fixed_size:
        return WholeView(min(trained) if size is None else size, backbone.patch_size)
    if size is not None:
        raise ValueError(f'--size {size}: the relative position bias of this encoder is for pictures of '
                         f'{trained[0]}x{trained[1]} pixels; leave --size out to see their centres')
    return CenterView(trained)


def main() -> None:
    """Draw as the command line says."""
    args = parse_args()

    from mmengine.config import Config

    from cae_mm.evaluation import protocol
    from cae_mm.visualization import choose_images, draw_rows, load_image, load_probe, look
    cfg = protocol.read_config(args)
    backbone, preprocess = protocol.load_encoder(cfg, args.checkpoint)
    head, probe = cfg.model.get('head', {}) if isinstance(cfg, Config) else {}, None
    if head.get('type', '').endswith('AttentiveProbeHead') and args.checkpoint != 'none':
        probe = load_probe(cfg, args.checkpoint).to(preprocess.device)

    random.seed(args.seed)
    view = choose_view(backbone, args.size)
    images = [load_image(path, view) for path in choose_images(args.images, args.num)]
    draw_rows(*look(backbone, preprocess, images, args.layer, args.heads, probe), args.out)
    print(f'{len(images)} pictures: {args.out}')


if __name__ == '__main__':
    run(main)
