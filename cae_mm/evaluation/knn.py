"""Weighted k-nearest-neighbour classification of frozen features."""
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dist import get_dist_info
from torch import Tensor

from cae_mm.engine.precision import exact_float32
from cae_mm.evaluation.accuracy import as_digits, ranking_size, top_accuracy
from cae_mm.evaluation.progress import progress_bar
from cae_mm.evaluation.ranks import gather


def check_k(k: int | Sequence[int], num_images: int) -> list[int]:
    """The numbers of neighbours, ascending; a ValueError for one outside 1..``num_images``."""
    ks = [k] if isinstance(k, int) else sorted(set(k))
    if ks[0] < 1 or ks[-1] > num_images:
        raise ValueError(f'k={k} with {num_images} training images: choose k in 1..{num_images}')
    return ks


@torch.inference_mode()
def vote(train_features: Tensor, train_labels: Tensor, queries: Tensor, ks: list[int],
         temperature: float, chunk: int) -> np.ndarray:
    """The ranking (number of ks, m, 1 or 5) of a few images, see :func:`knn_ranking`."""
    queries = F.normalize(queries.to(train_features.device).float(), dim=1)
    num_classes = int(train_labels.max()) + 1
    similar = queries.new_empty(len(queries), 0)
    neighbours = train_labels.new_empty(len(queries), 0)
    for keys, labels in zip(train_features.split(chunk), train_labels.split(chunk), strict=True):
        similar = torch.cat([similar, queries @ F.normalize(keys.float(), dim=1).T], 1)
        neighbours = torch.cat([neighbours, labels.expand(len(queries), -1)], 1)
        similar, order = similar.topk(min(ks[-1], similar.shape[1]))
        neighbours = neighbours.gather(1, order)
    votes, rankings = (similar / temperature).exp(), []
    for n in ks:
        scores = votes.new_zeros(len(queries), num_classes)
        scores.scatter_add_(1, neighbours[:, :n], votes[:, :n])
        scores, best = scores.topk(ranking_size(num_classes))
        rankings.append(best.masked_fill(scores == 0, -1))
    return torch.stack(rankings).cpu().numpy()


@exact_float32()
def knn_ranking(train_features: Tensor, train_labels: Tensor, features: Tensor,
                k: int | Sequence[int] = (10, 20), temperature: float = 0.07, chunk: int = 1024,
                device: str | torch.device | None = None,
                progress: bool = False) -> dict[int, Tensor]:
    """Let the k most similar training images vote, each with weight exp(cosine / temperature).

    Neighbours are merged chunk by chunk, so that never more than ``chunk`` x 16 ``chunk`` similarities
    exist. The ranks take turns with the chunks, so that each classifies its share.

    Args:
        train_features, train_labels (Tensor): (n, C) and (n,) int64.
        features (Tensor): (m, C) of the images to classify, a ``chunk`` at a time.
        k (int | Sequence[int]): numbers of neighbours, in 1..n.
        device (str | torch.device, optional): where to compute; that of ``features`` by default.

    Returns:
        dict[int, Tensor]: for each k the labels with most votes, the best first, (m, 5), or (m, 1) with up
            to 5 classes; -1 where there are no votes left. On the CPU, of all ranks.

    Source: the protocol of InstDisc (arXiv 1805.01978) as DINO and its successors use it.
    """
    ks = check_k(k, len(train_features))
    if train_features.shape[1] != features.shape[1]:
        raise ValueError(f'training features have {train_features.shape[1]} channels, the others '
                         f'{features.shape[1]}: extract both with the same encoder')
    train = [x.to(device or features.device) for x in (train_features, train_labels)]
    rank, world_size = get_dist_info()
    parts = []
    with progress_bar('k-NN', len(features), 'images', progress) as bar:
        for start in range(0, len(features), chunk * world_size):
            mine = features[start + rank * chunk:][:chunk]
            parts += gather(vote(*train, mine, ks, temperature, 16 * chunk))
            bar.update(sum(part.shape[1] for part in parts[-world_size:]))
    return dict(zip(ks, torch.from_numpy(np.concatenate(parts, 1)), strict=True))


def knn_accuracy(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor],
                 k: int | Sequence[int] = (10, 20), right: dict[str, str] | None = None,
                 **kwargs) -> dict[str, float]:
    """Accuracies in percent of weighted k-nearest neighbours, as ``{'knn/top1_k10': ...}``.

    Args:
        train, val (tuple[Tensor, Tensor]): features (n, C) and labels (n,).
        right (dict, optional): is given the digits of each top-1 accuracy, see ``as_digits``.
        k, **kwargs: see :func:`knn_ranking`.

    Returns:
        dict[str, float]: ``knn/top1_k10`` and, with more than 5 classes, ``knn/top5_k10``.
    """
    labels, results = val[1].cpu(), {}
    for number, ranking in knn_ranking(*train, val[0], k, **kwargs).items():
        results |= {f'knn/top{n}_k{number}': value for n, value in top_accuracy(ranking, labels).items()}
        if right is not None:
            right[f'knn/top1_k{number}'] = as_digits(ranking[:, 0] == labels)
    return results
