"""k-NN accuracy while a pre-training runs."""
from collections.abc import Sequence

from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmpretrain.registry import HOOKS

from cae_mm.evaluation.protocol import measure, rgb_preprocess


@HOOKS.register_module()
class KNNHook(Hook):
    """Measure the model's encoder on a labelled folder every few epochs and after the last.

    The numbers go to the log and the visualizer (``knn/top1_k10``, ...). The first process measures
    and the others wait. Random states and training modes stay as they are, so the training is the
    same with and without this hook.

    Args:
        data_root (str): directory with train/CLASS/* and val/CLASS/*.
        interval (int): epochs between two measurements.
        k (Sequence[int]): numbers of neighbours.
        feature (str): 'avg', the mean of the patch tokens, or 'cls', the class token.
        probe (bool): also fit a linear probe, ``linear/top1``.
        batch_size (int): images per forward pass.
        num_workers (int): loading processes.

    Raises:
        ValueError: for an interval below 1.
    """

    priority = 'LOW'

    def __init__(self, data_root: str, interval: int = 10, k: Sequence[int] = (10, 20),
                 feature: str = 'avg', probe: bool = False, batch_size: int = 128,
                 num_workers: int = 0):
        if interval < 1:
            raise ValueError(f'interval={interval}: measure every 1, 2, ... epochs')
        self.interval = interval
        self.settings = dict(data=data_root, k=k, feature=feature, probe=probe,
                             batch_size=batch_size, num_workers=num_workers, progress=False)

    def after_train_epoch(self, runner) -> None:
        """Measure, log, and let the other processes wait."""
        if not (self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner)):
            return
        if is_main_process():
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            preprocess = rgb_preprocess(model.data_preprocessor)
            results = {name: value  # but for the sweep by which the probe chose its penalty
                       for name, value in measure(model.backbone, preprocess, **self.settings).items()
                       if 'held_out' not in name}
            runner.logger.info(f'Epoch {runner.epoch + 1}: ' + ', '.join(
                f'{name} {value:.4g}' for name, value in results.items()))
            runner.visualizer.add_scalars(results, step=runner.epoch + 1)
        barrier()
