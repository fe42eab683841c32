"""What the evaluations share: which encoder, on which images, and what is measured."""
import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from mmengine.utils import import_modules_from_strings
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from cae_mm.checkpoint.loader import load_backbone
from cae_mm.evaluation.features import FEATURES, extract_features, labelled_loader
from cae_mm.evaluation.knn import knn_accuracy
from cae_mm.evaluation.linear_probe import linear_probe


def load_encoder(cfg: Config, checkpoint: str, device: str | None = None,
                 seed: int = 0) -> tuple[nn.Module, Callable]:
    """Build the backbone and the data preprocessor of a config, without the rest of the model.

    Args:
        cfg (Config): has ``model.backbone``.
        checkpoint (str): path of a checkpoint with the whole backbone, or 'none' for its random
            initialisation.
        device (str, optional): the best there is by default.
        seed (int): of the random initialisation.

    Returns:
        tuple[nn.Module, Callable]: backbone and preprocessor, on the device.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: see ``load_backbone``.
    """
    import_modules_from_strings(**cfg.get('custom_imports', dict(imports=['cae_mm'])))
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    device = device or get_device()
    set_random_seed(seed)
    backbone = MODELS.build(cfg.model.backbone)
    if checkpoint == 'none':
        print('No checkpoint: THE ENCODER IS RANDOM, its numbers are what training has to beat.')
    else:
        load_backbone(backbone, checkpoint)
    preprocess = cfg.model.get('data_preprocessor') or cfg.get(
        'data_preprocessor', dict(type='CAEDataPreprocessor'))
    return backbone.to(device), MODELS.build(preprocess).to(device)


def extract_splits(backbone: nn.Module, preprocess: Callable, data: str | Path,
                   feature: str = 'avg', progress: bool = True,
                   **loader) -> dict[str, tuple[Tensor, Tensor]]:
    """Features and labels of ``data/train`` and ``data/val``.

    Args:
        backbone, preprocess, feature, progress: see ``extract_features``; ``backbone`` tells its
            image size by ``grid_size`` and ``patch_size``.
        data (str | Path): labelled ImageNet directory.
        **loader: see ``labelled_loader``.

    Raises:
        ValueError: when the two splits have different classes; names them.
    """
    size = tuple(side * backbone.patch_size for side in backbone.grid_size)
    loaders = {split: labelled_loader(Path(data) / split, size, **loader)
               for split in ('train', 'val')}
    train, val = (loaders[split].dataset.classes for split in ('train', 'val'))
    if train != val:
        raise ValueError(f'{data}: train and val have different classes: '
                         f'{", ".join(sorted(set(train) ^ set(val)))}')
    return {split: extract_features(backbone, loader, preprocess, feature, progress)
            for split, loader in loaders.items()}


def measure(backbone: nn.Module, preprocess: Callable, data: str | Path, feature: str = 'avg',
            k: Sequence[int] = (10, 20), probe: bool = False, progress: bool = True,
            **loader) -> dict[str, float]:
    """Accuracies in percent of k-NN and, if asked, of a linear probe.

    Args:
        k (Sequence[int]): numbers of neighbours; empty leaves k-NN out.
        probe (bool): fit a linear probe too.
        backbone, preprocess, data, feature, progress, **loader: see ``extract_splits``.

    Returns:
        dict[str, float]: ``knn/top1_k10`` and the like, ``linear/top1``, ``linear/penalty``.
    """
    splits = extract_splits(backbone, preprocess, data, feature, progress, **loader)
    device = next(backbone.parameters()).device
    results = knn_accuracy(**splits, k=k, device=device) if k else {}
    if probe:
        results |= linear_probe(**splits, device=device)
    return results


def make_parser(description: str) -> argparse.ArgumentParser:
    """Parser of the command lines of all evaluations."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config with the encoder, e.g. of its pre-training')
    parser.add_argument('checkpoint', help='checkpoint, or "none" for the random initialisation')
    parser.add_argument('--data', required=True, help='directory with train/CLASS/*, val/CLASS/*')
    parser.add_argument('--feature', choices=FEATURES, default='avg',
                        help='mean of the patch tokens, or the class token')
    parser.add_argument('--batch-size', type=int, default=128)
    parser.add_argument('--num-workers', type=int, default=0, help='processes that load images')
    parser.add_argument('--seed', type=int, default=0, help='of the random initialisation')
    parser.add_argument('--out', type=Path, help='also write the numbers to this json file')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    return parser


def run(args: argparse.Namespace, k: Sequence[int] = (), probe: bool = False) -> dict[str, float]:
    """Measure what a command line asks for, print it, and write it to ``args.out``."""
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    encoder = load_encoder(cfg, args.checkpoint, seed=args.seed)
    results = measure(*encoder, args.data, args.feature, k, probe, batch_size=args.batch_size,
                      num_workers=args.num_workers)
    for name, value in results.items():
        print(f'{name:<16} {value:8.5g}')
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(results, indent=1))
    return results
