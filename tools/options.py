"""The options that tools share; without PyTorch, so that --help and mistakes are answered at once."""
import argparse
from pathlib import Path

from terminal import NATURAL, POSITIVE, new_file, number


class KeyValues(argparse.Action):
    """KEY=VALUE ..., parsed by what is imported then alone; each key is given once."""

    def __call__(self, parser, namespace, values, option_string=None):
        from mmengine.config import DictAction
        parse, given = DictAction._parse_iterable, dict(getattr(namespace, self.dest, None) or {})
        for text in values:
            key, equals, value = text.partition('=')
            if not equals or not all(key.split('.')):
                raise argparse.ArgumentError(self, f'{text} is no setting: write KEY=VALUE')
            for other in given:
                if f'{key}.'.startswith(f'{other}.') or f'{other}.'.startswith(f'{key}.'):
                    raise argparse.ArgumentError(self, f'{key} is given twice' if key == other else
                                                 f'{key} and {other} set the same: give one of them')
            if '{' in value or 'dict(' in value:
                from cae_mm.engine.literals import parse_value as parse  # takes seconds
            # mmengine takes a bracket without its other half for text.
            elif any(value.count(left) != value.count(right) for left, right in ('[]', '()')):
                raise argparse.ArgumentError(self, f'{text} has brackets that do not match')
            try:
                given[key] = parse(value)
            except ValueError as error:
                raise argparse.ArgumentError(self, f'{key}={error}') from error
        setattr(namespace, self.dest, given)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``load_config``, which all tools with the config of a whole model have."""
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--work-dir', help='directory of logs and checkpoints, '
                        'default: work_dirs/<name of the config>')
    parser.add_argument('--data-root', action='append', metavar='DIR', help="directory of the data, in "
                        "place of the config's; several to train on all of them")
    parser.add_argument('--backbone', metavar='NAME', help="encoder in place of the config's: a name of "
                        'cae_mm.list_models(), or timm:NAME, as in timm:vit_base_patch16_dinov3')
    parser.add_argument('--cfg-options', nargs='+', action=KeyValues, metavar='KEY=VALUE',
                        help='settings to override, as in lr=1e-4 batch_size=32 max_epochs=20 '
                        'num_workers=8 tokenizer=PATH classes=FILE model.backbone.drop_path_rate=0.2: '
                        'docs/options.md')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm'], default='none',
                        help='what started the processes')


def add_encoder_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name an encoder."""
    parser.add_argument('config', help='config with the encoder, of pre-training or classification, '
                        'by its path or name; or the name of an encoder, such as cae_vitb or '
                        'timm:vit_base_patch16_dinov3')
    parser.add_argument('checkpoint', help='checkpoint, or "none" for the random initialisation')
    parser.add_argument('--cfg-options', nargs='+', action=KeyValues, metavar='KEY=VALUE')


def add_evaluation_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of an evaluation of an encoder."""
    add_encoder_options(parser)
    parser.add_argument('--data', required=True, help='directory with train/CLASS/*, val/CLASS/*')
    parser.add_argument('--feature', choices=('avg', 'cls'), default='avg',
                        help='mean of the patch tokens, or the class token')
    parser.add_argument('--img-size', type=POSITIVE, metavar='PIXELS', help='side of the images, of an '
                        'encoder given by its name; default: that of its training')
    parser.add_argument('--features', type=Path, metavar='DIR', help='keep the features here, or '
                        'take them from here if they are there')
    parser.add_argument('--penalties', type=number(float, 0), nargs='+', metavar='P',
                        help='factors of the squared weights of the linear probe, of which held-out '
                        'training images choose')
    parser.add_argument('--amp', action='store_true', help='run the encoder in bfloat16')
    parser.add_argument('--batch-size', type=POSITIVE, default=128)
    parser.add_argument('--num-workers', type=NATURAL, default=0, help='processes that load images')
    parser.add_argument('--shots', type=POSITIVE, metavar='N', help='learn from N images of each class, '
                        'which --seed chooses')
    parser.add_argument('--subset', metavar='FILE', help='learn from the images that this file names, a '
                        "line each, as SimCLR's lists of 1 and 10 percent of ImageNet do")
    parser.add_argument('--seed', type=NATURAL, default=0,
                        help='of the random initialisation, and of --shots')
    parser.add_argument('--out', type=new_file(), help='also write the numbers to this json file')
    parser.add_argument('--right', type=new_file(), help='write to this json file which images of val were '
                        'right: for each top-1 accuracy a digit for each image, in their order')
