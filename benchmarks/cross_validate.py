#!/usr/bin/env python
"""Measure an encoder on the training images alone: to choose a recipe where there are few of them.

    python benchmarks/cross_validate.py configs/pretrain/cae_vitt_flowers.py CHECKPOINT --data DIR

k-NN leaves out the image itself, the linear probe a fifth of the images at a time. Pre-training has seen
all of them, but no label.
"""
import argparse
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor

from cae_mm.evaluation.features import extract_features, labelled_loader
from cae_mm.evaluation.knn import knn_ranking
from cae_mm.evaluation.lbfgs_probe import lbfgs_probe
from cae_mm.evaluation.protocol import load_encoder

PENALTY = 1e-3


def leave_one_out(features: Tensor, labels: Tensor, k: int = 10) -> float:
    """Per cent of images (n, C) that the k nearest others give their label (n,)."""
    right = 0
    for i in range(len(labels)):
        others = torch.arange(len(labels)) != i
        ranking = knn_ranking(features[others], labels[others], features[i:i + 1], k)[k]
        right += int(ranking[0, 0] == labels[i])
    return 100 * right / len(labels)


def folded_probe(features: Tensor, labels: Tensor, folds: int = 5) -> float:
    """Per cent of images (n, C) that a linear probe of the other folds gives their label (n,)."""
    right, order = 0., torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    for held in order.chunk(folds):
        others = torch.ones(len(labels), dtype=torch.bool)
        others[held] = False
        found = lbfgs_probe((features[others], labels[others]), (features[held], labels[held]),
                            penalties=[PENALTY])
        right += found['linear/top1'] * len(held)
    return right / len(labels)


def main() -> None:
    """Measure, and print two numbers."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('config', type=Config.fromfile, help='of the encoder')
    parser.add_argument('checkpoint')
    parser.add_argument('--data', type=Path, required=True, help='folder with train/CLASS/*')
    args = parser.parse_args()
    backbone, preprocess = load_encoder(args.config, args.checkpoint)
    loader = labelled_loader(args.data / 'train', args.config.model.backbone.img_size)
    features, labels = extract_features(backbone, loader, preprocess)
    print(f'k-NN, leave one out {leave_one_out(features, labels):.1f}, '
          f'linear, five folds {folded_probe(features, labels):.1f}')


if __name__ == '__main__':
    main()
