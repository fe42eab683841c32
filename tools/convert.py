#!/usr/bin/env python
"""Translate a checkpoint between this project, the official code, mmpretrain, timm and transformers."""
from terminal import POSITIVE, Parser, new_file, run

LAYOUTS = 'cae_mm', 'official', 'timm', 'mmpretrain', 'mmpretrain-vit', 'transformers'


def main() -> None:
    """Translate as the command line says."""
    parser = Parser(description=__doc__)
    parser.add_argument('checkpoint', help='checkpoint to read, .pth, .safetensors, or a folder of parts')
    parser.add_argument('out', type=new_file('.pth', '.pt', '.safetensors'),
                        help='file to write, .pth or .safetensors')
    parser.add_argument('--from', dest='source', choices=LAYOUTS, help='found out by default')
    parser.add_argument('--to', dest='target', choices=(*LAYOUTS, 'lwdetr'), default='cae_mm',
                        help='mmpretrain is its BEiTViT and CAE, mmpretrain-vit its VisionTransformer, '
                        "transformers its BEiT, lwdetr the encoder for LW-DETR's own code")
    parser.add_argument('--export', choices=('encoder', 'full'), default='full',
                        help='the encoder alone, or also what stands on it')
    parser.add_argument('--pooling', choices=('token', 'mean'), help='what the final norm of the target '
                        'normalises: all tokens, or the mean of the patches; by default as in the '
                        'source, and the mean for a classifier of ours')
    parser.add_argument('--num-heads', type=POSITIVE, help='attention heads of the encoder, where neither '
                        'the file says so nor the usual number of its origin and size is right')
    parser.add_argument('--img-size', type=POSITIVE, nargs='+', metavar=('HEIGHT', 'WIDTH'),
                        help='image size of the target, one number for a square')
    parser.add_argument('--positions', choices=('recompute', 'resize'),
                        help='at another image size, recompute the exact sine-cosine table (default '
                        'where there is one) or resize the given table (default elsewhere)')
    args = parser.parse_args()
    if args.positions and not args.img_size:
        parser.error('--positions says how positions are made for --img-size')
    if args.img_size and len(args.img_size) > 2:
        parser.error(f'--img-size takes a height and a width, not {args.img_size}')

    from cae_mm.checkpoint.convert import convert_file
    size = args.img_size and (args.img_size[0], args.img_size[-1])
    try:
        report = convert_file(args.checkpoint, args.out, args.target, source=args.source,
                              num_heads=args.num_heads, export=args.export, pooling=args.pooling,
                              img_size=size, positions=args.positions)
    except ValueError as error:
        if args.checkpoint in str(error):
            raise
        raise ValueError(f'{args.checkpoint}: {error}') from error
    print('\n'.join(report))


if __name__ == '__main__':
    run(main)
