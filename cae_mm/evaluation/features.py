"""Features of a frozen encoder for the images of a labelled folder."""
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import get_dist_info, is_main_process
from mmengine.logging import print_log
from mmpretrain.datasets import PackInputs
from PIL import Image
from timm.layers import to_2tuple
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional as F

from cae_mm.datasets import ImageFolder
from cae_mm.disk import named, walk
from cae_mm.engine.precision import exact_float32
from cae_mm.engine.signals import start_worker
from cae_mm.evaluation.progress import progress_bar
from cae_mm.evaluation.ranks import gather
from cae_mm.transforms import LoadRGBImage

FEATURES = ('avg', 'cls')
# The centre that evaluation sees is 224 / 256 of the shorter side, as on ImageNet.
CROP_RATIO = 224 / 256


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode, and give every submodule its own mode back afterwards."""
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for child, training in modes:
            child.training = training


class CenterView:
    """Resize the shorter side (bicubic) and crop the centre, of (height, width) ``size`` in pixels.

    An image that has the size already stays as it is: small images have nothing to lose.
    """

    def __init__(self, size):
        self.size = to_2tuple(size)

    def __call__(self, results: dict) -> dict:
        """Replace ``img`` (H, W, 3) uint8 by the view."""
        if results['img'].shape[:2] != self.size:
            image = Image.fromarray(results['img'])
            scale = max(self.size[0] / image.height, self.size[1] / image.width) / CROP_RATIO
            size = [round(image.height * scale), round(image.width * scale)]
            image = F.resize(image, size, F.InterpolationMode.BICUBIC)
            results['img'] = np.array(F.center_crop(image, self.size))  # PyTorch warns of read-only ones
        return results


class LabelledFolder(Dataset):
    """``directory/CLASS/*`` in a fixed order, by a :class:`CenterView` of ``img_size``.

    An item is a pair: the packed sample, or None with the path and reason of an unreadable file. ``few``
    are ``shots``, ``shots_seed`` and ``subset`` of ``ImageFolder``. A FileNotFoundError when there is no
    such folder, a ValueError when it has no classes, or one without images.
    """

    def __init__(self, directory, img_size, few=None):
        directory, self.img_size = Path(directory), to_2tuple(img_size)
        if not directory.is_dir():
            raise FileNotFoundError(f'there is no folder {directory}: labelled data has '
                                    'train/CLASS/* and val/CLASS/*')
        self.images = ImageFolder(
            data_root=str(directory), lazy_init=True, **few or {},
            pipeline=[LoadRGBImage(), CenterView(img_size), PackInputs()])
        folders = sorted(path for path in directory.iterdir() if path.is_dir())
        empty = [folder.name for folder in folders if not any(
            self.images.is_valid_file(path) for path, is_folder in walk(folder, {}) if not is_folder)]
        if empty or not folders:
            raise ValueError(f'{directory}: no images of class {", ".join(empty) or "folders"}. '
                             f'Expected {directory}/CLASS/* of {", ".join(self.images.extensions)}')
        self.images.full_init()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        return self.images.CLASSES

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        info = self.images.get_data_info(index)
        sample = self.images.pipeline(info)
        return sample, None if sample else f'{info["img_path"]} ({info.get("load_error")})'


def collate(items: list[tuple]) -> tuple[dict | None, list[str]]:
    """Batch the readable samples; list the unreadable files."""
    samples = [sample for sample, _ in items if sample]
    return (pseudo_collate(samples) if samples else None), [bad for _, bad in items if bad]


def labelled_loader(directory: str | Path, img_size: int | tuple[int, int], batch_size: int = 128,
                    num_workers: int = 0, few: dict | None = None) -> DataLoader:
    """Loader of this rank's batches, of a random state of its own: every n-th of those of a single rank."""
    dataset = LabelledFolder(directory, img_size, few)
    rank, world_size = get_dist_info()
    batches = [range(len(dataset))[i:i + batch_size] for i in range(0, len(dataset), batch_size)]
    return DataLoader(dataset, batch_sampler=batches[rank::world_size], num_workers=num_workers,
                      worker_init_fn=partial(start_worker, None), collate_fn=collate,
                      generator=torch.Generator().manual_seed(0))


def norm_after_mean(backbone: nn.Module, feature: str) -> bool:
    """Whether the feature is the mean of the tokens, normalised, and not of normalised tokens."""
    return feature == 'avg' and backbone.out_type == 'avg_featmap'


def pool(backbone: nn.Module, images: Tensor, feature: str) -> Tensor:
    """Features (B, C) of (B, 3, H, W) images, see :func:`extract_features`."""
    if norm_after_mean(backbone, feature):
        return backbone(images)[-1]
    tokens = backbone.encode(images)
    pooled = tokens[:, 0] if feature == 'cls' else tokens[:, backbone.num_prefix_tokens:].mean(1)
    return backbone.fc_norm(pooled) if hasattr(backbone, 'fc_norm') else pooled


def check_feature(backbone: nn.Module, feature: str) -> None:
    """A ValueError for an unknown ``feature``, or 'cls' of an encoder without class token."""
    if feature not in FEATURES:
        raise ValueError(f'feature={feature!r} is not one of {", ".join(FEATURES)}')
    if feature == 'cls' and not backbone.has_cls_token:
        raise ValueError("feature='cls': this encoder has no class token, take 'avg'")


def batch_features(backbone: nn.Module, loader: DataLoader, preprocess: Callable, feature: str,
                   amp: bool) -> Iterator[tuple[np.ndarray, list[int], list[str]]]:
    """Features (n, C) float32, labels and unreadable files of one batch after the other."""
    device = next(backbone.parameters()).device
    for batch, unreadable in loader:
        features, labels = np.empty((0, backbone.embed_dims), np.float32), []
        if batch:
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=amp):
                features = pool(backbone, preprocess(batch)['inputs'], feature).float().cpu().numpy()
            labels = [int(sample.gt_label) for sample in batch['data_samples']]
        yield features, labels, unreadable


@exact_float32()
def extract_features(backbone: nn.Module, loader: DataLoader, preprocess: Callable,
                     feature: str = 'avg', progress: bool = True,
                     amp: bool = False) -> tuple[Tensor, Tensor]:
    """Features (n, C) float32 and labels (n,) int64, on the CPU, of all ranks, in the order of the files.

    The final norm stands where the encoder was trained with it. In pre-training it is that of each token,
    and 'avg' is the mean of normalised patch tokens, 'cls' the class token; an encoder with
    ``out_type='avg_featmap'``, as for fine-tuning, normalises the mean, which is what its head sees.

    Args:
        backbone (CAEViT | TimmViT): runs where its parameters are, never compiled, with ``amp`` in
            bfloat16.
        loader (DataLoader): of this rank, see :func:`labelled_loader`.
        preprocess (Callable): data preprocessor, gives ``inputs`` (B, 3, H, W) on the device of the
            encoder.
        feature (str): one of ``FEATURES``, see :func:`check_feature`.
        progress (bool): tell how far it is.

    Raises:
        RuntimeError: when more than a tenth of the files cannot be read; fewer are named in the log.
    """
    check_feature(backbone, feature)
    files = len(loader.dataset)
    # Filled as the ranks meet after each batch.
    out, labels, bad = np.empty((files, backbone.embed_dims), np.float32), [], []
    batches = batch_features(backbone, loader, preprocess, feature, amp)
    with (evaluating(backbone), torch.compiler.set_stance('force_eager'),
          progress_bar(f'features of {loader.dataset.images.data_root}', files, 'images', progress) as bar):
        while any(found := gather(next(batches, ()))):
            for features, classes, unreadable in filter(None, found):
                out[len(labels):len(labels) + len(features)] = features
                labels += classes
                bad += unreadable
                bar.update(len(classes) + len(unreadable))
    if bad:
        message = f'{len(bad)} of {files} files are unreadable: {named(bad)}'
        if 10 * len(bad) > files:
            raise RuntimeError(f'{message}. More than a tenth: repair or remove them')
        if is_main_process():
            print_log(message, 'current', level=logging.WARNING)
    return torch.from_numpy(out[:len(labels)]), torch.tensor(labels)
