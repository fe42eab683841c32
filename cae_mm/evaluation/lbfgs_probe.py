"""The quick linear probe: logistic regression on frozen features by L-BFGS, in seconds."""
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, broadcast, get_dist_info, is_main_process
from torch import Tensor

from cae_mm.engine.precision import exact_float32
from cae_mm.evaluation.accuracy import as_digits, ranking_size, top_accuracy
from cae_mm.evaluation.progress import progress_bar
from cae_mm.evaluation.ranks import gather

# Penalties on the mean squared weights, from strong to weak: each fit starts from the one before.
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
# Logits that exist at a time: 64 MiB of them.
MAX_LOGITS = 2**24


def logit_chunks(weight: Tensor, features: Tensor):
    """(rows, K) logits of a chunk of ``features`` after the other, and the slice of its rows."""
    size = max(1, MAX_LOGITS // weight.shape[1])
    for start in range(0, len(features), size):
        rows = slice(start, start + size)
        yield torch.addmm(weight[-1], features[rows], weight[:-1]), rows


def fit(features: Tensor, labels: Tensor, num_classes: int, penalty: float,
        start: Tensor | None = None, max_iter: int = 300) -> Tensor:
    """Multinomial logistic regression by L-BFGS, never with all logits at once: (C + 1, K) weights.

    The last row are biases. The first rank takes the steps; loss and gradient are sums over the images of
    all ranks, of which this one has standardised ``features`` (n, C) and ``labels`` (n,) int64. ``penalty``
    weighs the sum of squared weights; ``start`` are weights to start from, zeros by default.
    """
    if start is None:
        start = features.new_zeros(features.shape[1] + 1, num_classes)
    weight = start.clone().requires_grad_()
    images = sum(gather(len(labels)))

    @torch.enable_grad()
    def slope() -> Tensor:
        broadcast(weight.detach())
        weight.grad = None
        loss = (penalty if is_main_process() else 0.) * weight[:-1].square().sum()
        loss.backward()
        for logits, rows in logit_chunks(weight, features):
            part = F.cross_entropy(logits, labels[rows], reduction='sum') / images
            part.backward()
            loss = loss.detach() + part.detach()
        total = torch.cat([weight.grad.flatten(), loss.detach().view(1)])
        gather()
        all_reduce(total)
        weight.grad = total[:-1].view_as(weight)
        return total[-1]

    def closure() -> Tensor:
        gather(True)  # one more step
        return slope()

    if is_main_process():
        torch.optim.LBFGS([weight], max_iter=max_iter, line_search_fn='strong_wolfe').step(closure)
        gather(False)
    else:
        while gather()[0]:
            slope()
    broadcast(weight.detach())
    return weight.detach()


def rank_images(weight: Tensor, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The (n, 1 or 5) most likely labels and the true ones of all ranks' images, on the CPU.

    The images are in the order from which the ranks take every world_size-th.
    """
    size = ranking_size(weight.shape[1])
    ranking = torch.cat([labels.new_empty(0, size), *(
        logits.topk(size).indices for logits, _ in logit_chunks(weight, features))])
    parts = gather((ranking.cpu().numpy(), labels.cpu().numpy()))
    order = np.argsort(np.concatenate([
        np.arange(len(found)) * len(parts) + rank for rank, (_, found) in enumerate(parts)]))
    return tuple(torch.from_numpy(np.concatenate(part)[order]) for part in zip(*parts, strict=True))


@exact_float32()
def lbfgs_probe(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor],
                device: str | torch.device | None = None, held_out: float = 0.2,
                penalties: Sequence[float] = PENALTIES,
                progress: bool = False, right: dict[str, str] | None = None) -> dict[str, float]:
    """Fit a linear classifier on frozen features and measure it.

    Features are standardised by the training set. The penalty is the best of ``penalties`` on a held-out
    part of the training set; from there the classifier is fitted on all of it. The same features give the
    same result, on another number of ranks, but for what rounding does to 300 iterations.

    Args:
        train, val (tuple[Tensor, Tensor]): features (n, C) and labels (n,) int64, the same on all ranks.
        device (str | torch.device, optional): where to compute; that of the features by default.
        held_out (float): share of the training images that choose the penalty.
        penalties (Sequence[float]): candidates, tried from strong to weak.
        progress (bool): tell how far it is.
        right (dict, optional): is given the digits of ``linear/top1``, see ``as_digits``.

    Returns:
        dict[str, float]: ``linear/top1`` and, with more than 5 classes, ``linear/top5`` in percent;
            ``linear/penalty``; ``linear/held_out_0.1`` and the like, top-1 on the held-out part with each.

    Raises:
        ValueError: when training images have fewer than two classes, or for a negative penalty.
    """
    features, labels = train
    num_classes = int(labels.max()) + 1
    if len(labels.unique()) < 2:
        raise ValueError(f'all {len(labels)} training images are of one class: a linear probe '
                         'needs two or more')
    penalties = sorted(set(penalties), reverse=True)
    if penalties[-1] < 0:
        raise ValueError(f'penalties={penalties}: they weigh squares, take 0 or more')
    device = device or features.device
    std, mean = torch.std_mean(features.to(device).float(), dim=0)
    std = std.clamp(min=1e-6)
    rank, world_size = get_dist_info()

    def standardised(features, labels, rows):
        return features[rows].to(device).float().sub_(mean).div_(std), labels[rows].to(device)

    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    num_out = max(1, round(held_out * len(labels)))
    held, kept = order[:num_out][rank::world_size], order[num_out:][rank::world_size]
    # The only copy: what is held out and what is kept are slices of it.
    features, labels = standardised(features, labels, torch.cat([held, kept]))
    num_out = len(held)

    weight, weights, scores = None, {}, {}
    with progress_bar('linear probe', len(penalties) + 1, 'fits', progress) as bar:
        for penalty in penalties:
            weight = fit(features[num_out:], labels[num_out:], num_classes, penalty, weight)
            weights[penalty] = weight
            scores[penalty] = top_accuracy(*rank_images(weight, features[:num_out], labels[:num_out]))[1]
            bar.update()
        best = max(scores, key=scores.get)
        weight = fit(features, labels, num_classes, best, weights[best])
        bar.update()
    rows = torch.arange(rank, len(val[1]), world_size)
    ranking, truth = rank_images(weight, *standardised(*val, rows))
    if right is not None:
        right['linear/top1'] = as_digits(ranking[:, 0] == truth)
    return ({f'linear/top{n}': value for n, value in top_accuracy(ranking, truth).items()}
            | {'linear/penalty': best}
            | {f'linear/held_out_{penalty}': score for penalty, score in scores.items()})
