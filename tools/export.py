#!/usr/bin/env python
"""Write an encoder, or a classifier, for other libraries and runtimes: docs/export.md."""
from terminal import NATURAL, POSITIVE, Parser, run

TARGETS = 'onnx', 'torch-export', 'safetensors', 'huggingface', 'timm', 'lwdetr'


def main() -> None:
    """Export as the command line says."""
    parser = Parser(description=__doc__)
    parser.add_argument('checkpoint', help='checkpoint of any known origin; of a pre-training, a detector, '
                        'a segmentor or a probe the encoder is taken')
    parser.add_argument('out', help='.onnx, .pt2 or .safetensors file; a new folder for the others')
    parser.add_argument('--to', choices=TARGETS, required=True, help='huggingface is a folder for '
                        "transformers' BEiT, timm one for timm and transformers, lwdetr one for "
                        "transformers' LwDetrViTBackbone")
    parser.add_argument('--encoder-only', action='store_true', help='of a classifier too')
    parser.add_argument('--out-indices', type=NATURAL, nargs='+', metavar='BLOCK', help='blocks whose maps '
                        'an onnx or torch-export encoder gives, from 0 on; default: the last')
    parser.add_argument('--img-size', type=POSITIVE, nargs='+', metavar=('HEIGHT', 'WIDTH'),
                        help='one number for a square; default: as in its training')
    parser.add_argument('--num-heads', type=POSITIVE, help='attention heads, where the file does not say')
    parser.add_argument('--pooling', choices=('token', 'mean'), help='what a classifier reads: the class '
                        'token or the mean of the patches; default: as its names tell, else the mean')
    parser.add_argument('--license', metavar='NAME', help='of the weights, for the model card, as the '
                        'Hugging Face Hub calls it: apache-2.0, cc-by-nc-4.0, ...')
    args = parser.parse_args()
    folder = args.to in ('huggingface', 'timm')
    if args.img_size and len(args.img_size) > 2:
        parser.error(f'--img-size takes a height and a width, not {args.img_size}')
    if args.out_indices and args.to not in ('onnx', 'torch-export'):
        parser.error('--out-indices is of onnx and torch-export: the others give the maps of all blocks')
    if args.license and not folder:
        parser.error('--license is for the model card, which huggingface and timm have')

    from cae_mm.checkpoint.export import export, read_model
    from cae_mm.visualization.card import model_card
    report = []
    model = read_model(
        args.checkpoint, args.encoder_only, args.out_indices or (-1,), num_heads=args.num_heads,
        report=report,
        pooling=args.pooling, img_size=args.img_size and (args.img_size[0], args.img_size[-1]))
    card = '' if not folder else model_card(model, args.checkpoint, args.out, args.to, report, args.license)
    report += export(model, args.out, args.to, card)
    print(*report[:-1], f'wrote {args.out}, load it with {report[-1]}', sep='\n')


if __name__ == '__main__':
    run(main)
