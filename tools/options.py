"""The options that tools share; without PyTorch, so that --help and mistakes are answered at once."""
import argparse
from pathlib import Path


class KeyValues(argparse.Action):
    """mmengine's DictAction, imported when there is something to parse."""

    def __call__(self, parser, namespace, values, option_string=None):
        from mmengine.config import DictAction
        DictAction(self.option_strings, self.dest, nargs='+')(parser, namespace, values, option_string)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``load_config``, which all tools with the config of a whole model have."""
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--work-dir', help='directory of logs and checkpoints, '
                        'default: work_dirs/<name of the config>')
    parser.add_argument('--data-root', action='append', metavar='DIR', help="directory of the data, in "
                        "place of the config's; several to train on all of them")
    parser.add_argument('--cfg-options', nargs='+', action=KeyValues, metavar='KEY=VALUE',
                        help='settings to override, as in train_dataloader.batch_size=32 '
                        'tokenizer=PATH num_classes=N classes=FILE (names, or COCO annotations)')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm'], default='none',
                        help='what started the processes')


def add_encoder_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name an encoder."""
    parser.add_argument('config', help='config with the encoder, of pre-training or classification, '
                        'by its path or name; or the name of an encoder, such as cae_vitb')
    parser.add_argument('checkpoint', help='checkpoint, or "none" for the random initialisation')
    parser.add_argument('--cfg-options', nargs='+', action=KeyValues, metavar='KEY=VALUE')


def add_evaluation_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of an evaluation of an encoder."""
    add_encoder_options(parser)
    parser.add_argument('--data', required=True, help='directory with train/CLASS/*, val/CLASS/*')
    parser.add_argument('--feature', choices=('avg', 'cls'), default='avg',
                        help='mean of the patch tokens, or the class token')
    parser.add_argument('--features', type=Path, metavar='DIR', help='keep the features here, or '
                        'take them from here if they are there')
    parser.add_argument('--penalties', type=float, nargs='+', metavar='P',
                        help='factors of the squared weights of the linear probe, of which held-out '
                        'training images choose')
    parser.add_argument('--amp', action='store_true', help='run the encoder in bfloat16')
    parser.add_argument('--batch-size', type=int, default=128)
    parser.add_argument('--num-workers', type=int, default=0, help='processes that load images')
    parser.add_argument('--seed', type=int, default=0, help='of the random initialisation')
    parser.add_argument('--out', type=Path, help='also write the numbers to this json file')
