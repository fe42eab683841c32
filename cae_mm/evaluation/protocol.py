"""What the evaluations share: which encoder, on which images, and what is measured."""
import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from mmengine.utils import import_modules_from_strings
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cae_mm.atomic import write_atomically
from cae_mm.checkpoint.facts import check_pixels
from cae_mm.checkpoint.loader import load_backbone
from cae_mm.checkpoint.timm_weights import load_timm
from cae_mm.engine import launch
from cae_mm.engine.backbones import TIMM
from cae_mm.engine.overrides import apply_options
from cae_mm.evaluation.features import check_feature, extract_features, labelled_loader
from cae_mm.evaluation.knn import check_k, knn_accuracy
from cae_mm.evaluation.lbfgs_probe import PENALTIES, lbfgs_probe
from cae_mm.evaluation.ranks import gather, together
from cae_mm.evaluation.store import describe, make_room, read, write
from cae_mm.models import CAEDataPreprocessor, CAEViT, TimmViT


def load_encoder(cfg: Config | str, checkpoint: str, device: str | None = None, seed: int = 0,
                 img_size: int | None = None) -> tuple[CAEViT | TimmViT, CAEDataPreprocessor]:
    """Build the encoder of a config, on the device, and the normalisation of its pixels, which takes RGB.

    Args:
        cfg (Config | str): has ``model.backbone``; or a name of ``cae_mm.list_models()``, whose pixels are
            normalised by ImageNet's mean and standard deviation, or 'timm:' and a name of timm's, whose are
            by its own.
        checkpoint (str): with the whole encoder, or 'none' for its random initialisation by ``seed``.
        device (str, optional): the best there is by default.
        img_size (int, optional): side of the images, in pixels, of an encoder given by its name.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: see ``load_backbone`` and ``check_pixels``; for a
            config without a ``CAEViT``, or whose pixels are not normalised.
    """
    device = device or get_device()
    set_random_seed(seed)
    if isinstance(cfg, str):
        from cae_mm.hub import get_model
        sizes = dict(img_size=img_size) if img_size else {}
        backbone = get_model(cfg, **sizes, **(dict(out_type='raw') if cfg.startswith(TIMM) else {}))
        preprocess = CAEDataPreprocessor()
    else:
        import_modules_from_strings(**cfg.get('custom_imports', dict(imports=['cae_mm'])))
        init_default_scope(cfg.get('default_scope', 'mmpretrain'))
        kind = cfg.get('model', {}).get('backbone', {}).get('type', 'no backbone')
        if kind.split('.')[-1] not in ('CAEViT', 'TimmViT'):
            raise ValueError(f'{cfg.filename} has {kind}, not CAEViT: take a config of this project '
                             'with the same encoder; checkpoints of other models are converted')
        backbone = MODELS.build(cfg.model.backbone)
        settings = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor', {})
        preprocess = rgb_preprocess(MODELS.build({'type': 'ClsDataPreprocessor', **settings}))
    if checkpoint != 'none':
        (load_timm if isinstance(backbone, TimmViT) else load_backbone)(backbone, checkpoint)
    if isinstance(cfg, str) and isinstance(backbone, TimmViT):
        pixels = ([255 * x for x in numbers] for numbers in (backbone.mean, backbone.std))
        preprocess = CAEDataPreprocessor(*pixels)
    if checkpoint != 'none':
        check_pixels(backbone, preprocess)
    elif is_main_process():
        print('No checkpoint: THE ENCODER IS RANDOM, its numbers are what training has to beat.')
    return backbone.to(device), preprocess.to(device)


def rgb_preprocess(preprocess: nn.Module) -> CAEDataPreprocessor:
    """Normalise RGB images as a model's own preprocessor does, which may take BGR, or a ValueError."""
    if isinstance(preprocess, CAEDataPreprocessor):
        return preprocess
    if not hasattr(preprocess, 'mean'):
        raise ValueError(f'this {type(preprocess).__name__} does not normalise: give data_preprocessor '
                         'the mean and std that the encoder was trained with')
    mean, std = (x.flatten().tolist() for x in (preprocess.mean, preprocess.std))
    return CAEDataPreprocessor(mean, std).to(preprocess.device)


def labelled_splits(data: str | Path, img_size: int | tuple[int, int], few: dict | None = None,
                    **loader) -> dict[str, DataLoader]:
    """Loaders of ``data/train``, of which ``few`` images, and ``data/val``, see ``labelled_loader``.

    A ValueError names the classes that are not in both.
    """
    loaders = {split: labelled_loader(Path(data) / split, img_size, few=chosen, **loader)
               for split, chosen in (('train', few), ('val', None))}
    train, val = (loader.dataset.classes for loader in loaders.values())
    if train != val:
        raise ValueError(f'{data}: train and val have different classes: '
                         f'{", ".join(sorted(set(train) ^ set(val)))}')
    return loaders


def prepare(backbone: nn.Module, data: str | Path, feature: str = 'avg', k: Sequence[int] = (),
            **loader) -> dict[str, DataLoader]:
    """The loaders that :func:`measure` reads, after all checks that need no work, on all ranks.

    ``data`` and ``loader`` are those of :func:`labelled_splits`, ``feature`` and ``k`` of :func:`measure`;
    the backbone tells its image size by ``grid_size`` and ``patch_size``.
    """
    with together():
        check_feature(backbone, feature)
        size = tuple(side * backbone.patch_size for side in backbone.grid_size)
        loaders = labelled_splits(data, size, **loader)
        if k:
            check_k(k, len(loaders['train'].dataset))
    return loaders


def extract_splits(backbone: nn.Module, preprocess: nn.Module, loaders: dict[str, DataLoader],
                   feature: str = 'avg', progress: bool = True, amp: bool = False,
                   features: str | Path | None = None) -> dict[str, tuple[Tensor, Tensor]]:
    """Features and labels of each split, see ``extract_features``.

    ``features`` is a directory to keep them in, or to take them from if they are there: the first rank
    writes, all read. A ValueError when it holds those of another encoder or of other images, an OSError
    when it has no room.
    """
    def extract(split):
        return extract_features(backbone, loaders[split], preprocess, feature, progress, amp)

    if features is None:
        return {split: extract(split) for split in loaders}
    directory, origins = Path(features), None
    if is_main_process():
        origins = {split: describe(backbone, preprocess, loader.dataset, feature, amp)
                   for split, loader in loaders.items()}
    origins, *_ = gather(origins)
    kept = {split: read(directory / f'{split}.safetensors', origin) for split, origin in origins.items()}
    missing = [split for split in loaders if not all(gather(kept[split] is not None))]
    if is_main_process():
        files = sum(len(loaders[split].dataset) for split in missing)
        make_room(directory, 4 * backbone.embed_dims * files)
    for split in missing:
        kept[split] = extract(split)
        if is_main_process():
            write(directory / f'{split}.safetensors', origins[split], *kept[split])
    return kept


def measure(backbone: nn.Module, preprocess: nn.Module, loaders: dict[str, DataLoader],
            feature: str = 'avg', k: Sequence[int] = (10, 20), probe: bool = False,
            progress: bool = True, amp: bool = False, features: str | Path | None = None,
            penalties: Sequence[float] = PENALTIES,
            right: dict[str, str] | None = None) -> dict[str, float]:
    """Accuracies in percent of k-NN and, if asked, of the quick linear probe, by all ranks together.

    Args:
        backbone, preprocess, feature, progress, amp, features: see ``extract_splits``.
        loaders (dict[str, DataLoader]): see :func:`prepare`.
        k (Sequence[int]): numbers of neighbours; empty leaves k-NN out.
        probe (bool): fit a linear probe too, with one of ``penalties``.
        right (dict, optional): is given a digit for each image and top-1 accuracy, see ``as_digits``.

    Raises:
        RankError: on all ranks, for whatever happens on one of several, see ``together``.
    """
    with together():
        splits = extract_splits(backbone, preprocess, loaders, feature, progress, amp, features)
        device = next(backbone.parameters()).device
        settings = dict(device=device, progress=progress, right=right)
        results = knn_accuracy(**splits, k=k, **settings) if k else {}
        if probe:
            results |= lbfgs_probe(**splits, penalties=penalties, **settings)
    return results


def read_config(args: argparse.Namespace) -> Config | str:
    """The config that a command line names by its path or name, with its options; of an encoder its name.

    A FileNotFoundError when it is neither; a ValueError for options to an encoder, which has no config.
    """
    from cae_mm.hub import ModelHub, list_models
    if args.config in list_models() or args.config.startswith(TIMM):
        if args.cfg_options:
            raise ValueError(f'--cfg-options change a config, and {args.config} is a model: name a '
                             'config')
        return args.config
    if getattr(args, 'img_size', None):
        raise ValueError(f'--img-size is for an encoder given by its name: {args.config} says it itself')
    if ModelHub.has(args.config):
        cfg = ModelHub.get(args.config).config
    else:
        try:
            cfg = launch.read_config(args.config)
        except FileNotFoundError as error:
            raise FileNotFoundError(f'there is no model {args.config}, as are {", ".join(list_models())}; '
                                    f'and {error}') from error
    apply_options(cfg, args.cfg_options or {})
    return cfg


def run(args: argparse.Namespace, k: Sequence[int] = (), probe: bool = False) -> None:
    """Measure what a command line asks for, on all ranks; the first prints it and writes ``args.out``."""
    launch.join_processes()
    penalties = args.penalties or PENALTIES
    encoder = load_encoder(read_config(args), args.checkpoint, seed=args.seed, img_size=args.img_size)
    few = dict(shots=args.shots, shots_seed=args.seed, subset=args.subset)
    loaders = prepare(encoder[0], args.data, args.feature, k, batch_size=args.batch_size,
                      num_workers=args.num_workers, few=few)
    right = {}
    results = measure(*encoder, loaders, args.feature, k, probe, amp=args.amp, features=args.features,
                      penalties=penalties, right=right)
    if not is_main_process():
        return
    for name, value in results.items():
        print(f'{name:<24} {value:8.5g}')
    if probe and 0 < results['linear/penalty'] == min(penalties) < max(penalties):
        print('The weakest penalty is the best on held-out images: try --penalties with weaker ones.')
    if args.out:
        write_atomically(json.dumps(results, indent=1).encode(), args.out)
    if args.right:
        write_atomically(json.dumps(right, indent=1).encode(), args.right)
