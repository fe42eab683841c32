"""Linear classification of frozen features, in seconds."""
import torch
import torch.nn.functional as F
from torch import Tensor

# Penalties on the mean squared weights, from strong to weak: each fit starts from the one before.
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


def fit(features: Tensor, labels: Tensor, num_classes: int, penalty: float,
        start: Tensor | None = None, max_iter: int = 100) -> Tensor:
    """Multinomial logistic regression by L-BFGS.

    Args:
        features (Tensor): (n, C), standardised.
        labels (Tensor): (n,) int64.
        num_classes (int): K.
        penalty (float): factor of the sum of squared weights; biases are free.
        start (Tensor, optional): weights to start from, zeros by default.
        max_iter (int): iterations of L-BFGS.

    Returns:
        Tensor: (C + 1, K) weights, the last row the biases.
    """
    if start is None:
        start = features.new_zeros(features.shape[1] + 1, num_classes)
    weight = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weight], max_iter=max_iter, line_search_fn='strong_wolfe')

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(torch.addmm(weight[-1], features, weight[:-1]), labels)
        loss = loss + penalty * weight[:-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach()


def accuracy(weight: Tensor, features: Tensor, labels: Tensor) -> float:
    """Share of images classified right, in percent."""
    return 100 * ((features @ weight[:-1] + weight[-1]).argmax(1) == labels).float().mean().item()


def linear_probe(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor],
                 device: str | torch.device | None = None, held_out: float = 0.2,
                 penalties: tuple[float, ...] = PENALTIES) -> dict[str, float]:
    """Fit a linear classifier on frozen features and measure it.

    Features are standardised by the training set. The penalty is the best of ``penalties`` on a
    held-out part of the training set; the classifier is then fitted on all of it. The same features
    give the same result.

    Args:
        train, val (tuple[Tensor, Tensor]): features (n, C) and labels (n,) int64.
        device (str | torch.device, optional): where to compute; that of the features by default.
        held_out (float): share of the training images that choose the penalty.
        penalties (tuple[float, ...]): candidates, from strong to weak.

    Returns:
        dict[str, float]: ``linear/top1`` in percent, ``linear/penalty``.

    Raises:
        ValueError: when training images have fewer than two classes.
    """
    device = device or train[0].device
    (features, labels), (val_features, val_labels) = (
        (x.to(device).float(), y.to(device)) for x, y in (train, val))
    num_classes = int(labels.max()) + 1
    if len(labels.unique()) < 2:
        raise ValueError(f'all {len(labels)} training images are of one class: a linear probe '
                         'needs two or more')
    std, mean = torch.std_mean(features, dim=0)
    features, val_features = ((x - mean) / std.clamp(min=1e-6) for x in (features, val_features))

    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).to(device)
    out, kept = order.tensor_split([max(1, round(held_out * len(labels)))])
    weight, scores = None, []
    for penalty in penalties:
        weight = fit(features[kept], labels[kept], num_classes, penalty, weight)
        scores.append(accuracy(weight, features[out], labels[out]))
    best = penalties[scores.index(max(scores))]
    weight = fit(features, labels, num_classes, best)
    return {'linear/top1': accuracy(weight, val_features, val_labels), 'linear/penalty': best}
