"""What matrix products in TF32 or bfloat16 change, simulated on a CPU: codes, features and accuracy.

    python benchmarks/precision.py --data-root DIR --tokenizer work_dirs/dvae_eurosat/epoch_6.pth \
        --encoder work_dirs/cae_vitt_eurosat/epoch_14.pth

Inputs of the products are rounded, as GPUs do, and sums are in float32.
"""
import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

ROOT = Path(__file__).resolve().parents[1]
PRODUCTS = {F.linear, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.mm,
            F.scaled_dot_product_attention}


def tf32(x: torch.Tensor) -> torch.Tensor:
    """Keep 10 of the 23 bits of the mantissa, the nearest ones, ties away from zero."""
    return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def bfloat16(x: torch.Tensor) -> torch.Tensor:
    """Keep 7 bits."""
    return x.bfloat16().float()


class Rounded(TorchFunctionMode):
    """All products of matrices with rounded inputs."""

    def __init__(self, rounding):
        super().__init__()
        self.rounding = rounding

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Round what goes into a product."""
        if func in PRODUCTS:
            args = [self.rounding(arg) if torch.is_tensor(arg) and arg.ndim > 1 else arg for arg in args]
        return func(*args, **(kwargs or {}))


def main() -> None:
    """Print how many codes and nearest neighbours change, and by how much features do."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--data-root', type=Path, required=True)
    parser.add_argument('--tokenizer', required=True)
    parser.add_argument('--encoder', required=True)
    args = parser.parse_args()
    from mmengine import Config
    from mmpretrain.registry import MODELS

    from cae_mm.checkpoint.loader import load_backbone
    from cae_mm.evaluation import extract_features, labelled_loader
    from cae_mm.evaluation.knn import knn_ranking
    config = Config.fromfile(ROOT / 'configs/pretrain/cae_vitt_eurosat.py').model
    tokenizer = MODELS.build(dict(config.target_generator, init_cfg=dict(
        type='Pretrained', checkpoint=args.tokenizer)))
    backbone, preprocess = map(MODELS.build, (config.backbone, dict(type='CAEDataPreprocessor')))
    load_backbone(backbone, args.encoder)
    train, val = (labelled_loader(args.data_root / split, 64) for split in ('train', 'val'))

    def measure(rounding=None):
        with Rounded(rounding or (lambda x: x)):
            codes = torch.cat([last_layer(batch) for batch, _ in val])
            keys, labels = extract_features(backbone, train, preprocess, progress=False)
            queries, truth = extract_features(backbone, val, preprocess, progress=False)
            found = knn_ranking(keys, labels, queries, 10)[10][:, 0]
        return codes, queries, found, truth

    @torch.no_grad()
    def last_layer(batch):  # the layers before it are in float16 on GPUs, with their own effect
        images = torch.stack(batch['inputs']) / 255
        features = tokenizer.encoder.features(images * 0.8 + 0.1).permute(0, 2, 3, 1)
        return tokenizer.encoder.logits(features).argmax(-1).flatten()

    codes, features, found, truth = measure()
    print(f'float32: {len(codes):,} codes, {codes.unique().numel()} different; '
          f'k-NN {100 * (found == truth).float().mean():.2f}')
    for rounding in (tf32, bfloat16):
        other = measure(rounding)
        distance = (other[1] - features).norm(dim=1) / features.norm(dim=1)
        print(f'{rounding.__name__}: {100 * (other[0] != codes).float().mean():.3f} % of the codes are '
              f'others; features differ by {distance.mean():.1e} of their norm; k-NN '
              f'{100 * (other[2] == truth).float().mean():.2f}, {(other[2] != found).sum()} of '
              f'{len(found)} answers are others')


if __name__ == '__main__':
    main()
