"""Top-1 and top-5 accuracy, the same for every classifier here."""
from torch import Tensor


def ranking_size(num_classes: int) -> int:
    """How many classes a ranking holds: five, or the best one where five say nothing."""
    return 5 if num_classes > 5 else 1


def top_accuracy(ranking: Tensor, labels: Tensor) -> dict[int, float]:
    """Percent of images whose label is among the first 1, and the first 5 if there are as many.

    Args:
        ranking (Tensor): (n, 1 or 5) labels, the most likely first.
        labels (Tensor): (n,) true labels.
    """
    right = ranking == labels[:, None]
    return {n: 100 * right[:, :n].any(1).float().mean().item()
            for n in sorted({1, ranking.shape[1]})}
