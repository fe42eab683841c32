"""k-NN accuracy while a pre-training runs."""
from collections.abc import Sequence

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop
from mmpretrain.registry import HOOKS

from cae_mm.checkpoint.loader import encoder_of
from cae_mm.engine.sharding import gathered
from cae_mm.evaluation.protocol import measure, prepare, rgb_preprocess


@HOOKS.register_module()
class KNNHook(Hook):
    """Measure the model's encoder on a labelled folder every few epochs and after the last.

    The numbers go to the log and the visualizer (``knn/top1_k10``, ...). All ranks measure together, when
    the checkpoint of the epoch is written. Folder, classes and k are checked before the training starts; a
    measurement that fails later is a warning. Random states and training modes stay as they are, so the
    training is the same with and without this hook. For the encoders it takes see ``encoder_of``.

    Args:
        data_root (str): directory with train/CLASS/* and val/CLASS/*.
        interval (int): epochs between two measurements; a ValueError below 1.
        k (Sequence[int]): numbers of neighbours.
        feature (str): 'avg', the mean of the patch tokens, or 'cls', the class token.
        probe (bool): also fit a linear probe, ``linear/top1``.
        batch_size (int): images per forward pass and rank.
        num_workers (int, optional): loading processes per rank; as many as the training has by default.
        amp (bool, optional): run the encoder in bfloat16; by default on GPUs.
    """

    priority = 'LOWEST'  # after the checkpoint hook's VERY_LOW

    def __init__(self, data_root: str, interval: int = 10, k: Sequence[int] = (10, 20),
                 feature: str = 'avg', probe: bool = False, batch_size: int = 128,
                 num_workers: int | None = None, amp: bool | None = None):
        if interval < 1:
            raise ValueError(f'interval={interval}: measure every 1, 2, ... epochs')
        self.data_root, self.interval, self.batch_size, self.num_workers = (
            data_root, interval, batch_size, num_workers)
        self.settings = dict(feature=feature, k=k, probe=probe, amp=amp, progress=False)

    def before_run(self, runner) -> None:
        """Check all that can be checked before a training; a FileNotFoundError or ValueError says what is
        wrong.
        """
        if not isinstance(runner._train_loop, BaseLoop):
            return  # a test run
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        workers = runner.train_dataloader.num_workers if self.num_workers is None else self.num_workers
        try:
            self.loaders = prepare(
                encoder_of(model.backbone), self.data_root, self.settings['feature'], self.settings['k'],
                batch_size=self.batch_size, num_workers=workers)
        except FileNotFoundError as error:
            raise FileNotFoundError(f'{error}. KNNHook measures with them: where there are none, leave it '
                                    'out, as by --cfg-options default_hooks.knn=None') from error
        self.encoder = model.backbone, rgb_preprocess(model.data_preprocessor)
        if self.settings['amp'] is None:
            self.settings['amp'] = next(model.parameters()).is_cuda

    def after_train_epoch(self, runner) -> None:
        """Measure and log; warn where that fails, which it does on all ranks or on none."""
        if not (self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner)):
            return
        epoch = runner.epoch + 1
        try:
            backbone, preprocess = self.encoder
            with gathered(runner.model):
                results = measure(encoder_of(backbone), preprocess, self.loaders, **self.settings)
            # But for the sweep by which the probe chose its penalty.
            results = {name: value for name, value in results.items() if 'held_out' not in name}
            runner.logger.info(f'Epoch {epoch}: ' + ', '.join(
                f'{name} {value:.4g}' for name, value in results.items()))
            runner.visualizer.add_scalars(results, step=epoch)
        except Exception as error:
            runner.logger.warning(f'Epoch {epoch}: k-NN failed, the training goes on: '
                                  f'{type(error).__name__}: {error}')
        torch.cuda.empty_cache()  # The blocks of another batch size would stay reserved.
