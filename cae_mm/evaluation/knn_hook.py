"""What is looked at while a pre-training runs, and k-NN accuracy."""
from collections.abc import Sequence

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop
from mmpretrain.registry import HOOKS
from torch import nn

from cae_mm.checkpoint.loader import encoder_of
from cae_mm.engine.sharding import gathered
from cae_mm.evaluation.protocol import measure, prepare, rgb_preprocess


class EncoderHook(Hook):
    """Looks at the model every ``interval`` epochs and after the last, and warns where that fails."""
    priority = 'LOWEST'  # after the checkpoint hook's VERY_LOW
    failure: str  # what a warning says

    def __init__(self, interval: int):
        if interval < 1:
            raise ValueError(f'interval={interval}: take 1, 2, ... epochs')
        self.interval = interval

    def before_run(self, runner) -> None:
        """Check what can be checked before a training."""
        if isinstance(runner._train_loop, BaseLoop):  # and no test run
            self.prepare(runner, runner.model.module if is_model_wrapper(runner.model) else runner.model)

    def after_train_epoch(self, runner) -> None:
        """Look; warn where that fails, which it does on all ranks or on none."""
        if not (self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner)):
            return
        epoch = runner.epoch + 1
        try:
            with gathered(runner.model):
                self.look(runner, epoch)
        except Exception as error:
            runner.logger.warning(f'Epoch {epoch}: {self.failure}, the training goes on: '
                                  f'{type(error).__name__}: {error}')
        torch.cuda.empty_cache()  # The blocks of another batch size would stay reserved.


@HOOKS.register_module()
class KNNHook(EncoderHook):
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
    failure = 'k-NN failed'

    def __init__(self, data_root: str, interval: int = 10, k: Sequence[int] = (10, 20),
                 feature: str = 'avg', probe: bool = False, batch_size: int = 128,
                 num_workers: int | None = None, amp: bool | None = None):
        super().__init__(interval)
        self.data_root, self.batch_size, self.num_workers = data_root, batch_size, num_workers
        self.settings = dict(feature=feature, k=k, probe=probe, amp=amp, progress=False)

    def prepare(self, runner, model: nn.Module) -> None:
        """Check the settings and the folder: a ValueError or FileNotFoundError."""
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

    def look(self, runner, epoch: int) -> None:
        """Measure and log."""
        backbone, preprocess = self.encoder
        results = measure(encoder_of(backbone), preprocess, self.loaders, **self.settings)
        # But for the sweep by which the probe chose its penalty.
        results = {name: value for name, value in results.items() if 'held_out' not in name}
        runner.logger.info(f'Epoch {epoch}: ' + ', '.join(
            f'{name} {value:.4g}' for name, value in results.items()))
        runner.visualizer.add_scalars(results, step=epoch)
