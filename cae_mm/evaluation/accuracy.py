"""Top-1 and top-5 accuracy, the same for every classifier here, and which images are right."""
import torch
from mmpretrain.evaluation import Accuracy
from mmpretrain.registry import METRICS
from torch import Tensor

from cae_mm.atomic import write_atomically


def ranking_size(num_classes: int) -> int:
    """How many classes a ranking holds: five, or the best one where five say nothing."""
    return 5 if num_classes > 5 else 1


def top_accuracy(ranking: Tensor, labels: Tensor) -> dict[int, float]:
    """Percent of (n,) labels among the first 1, and the first 5, of rankings (n, 1 or 5), best first."""
    right = ranking == labels[:, None]
    return {n: 100 * right[:, :n].any(1).float().mean().item()
            for n in sorted({1, ranking.shape[1]})}


def as_digits(right: Tensor) -> str:
    """A digit for each of (n,) images: 1 where it is right."""
    return ''.join('01'[each] for each in right.tolist())


@METRICS.register_module()
class RecordedAccuracy(Accuracy):
    """mmpretrain's Accuracy, which also writes ``as_digits`` of each evaluation into a file, ``out``."""

    def __init__(self, *args, out=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.out = out

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """The accuracies in percent."""
        if self.out:
            write_atomically(as_digits(torch.cat([
                result['pred_score'].argmax(-1, keepdim=True) == result['gt_label']
                for result in results])).encode(), self.out)
        return super().compute_metrics(results)
