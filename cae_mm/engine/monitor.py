"""What a run tells about itself, and when it stops itself."""
import math
import re
import sys
import time

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.model import is_model_wrapper
from mmpretrain.registry import HOOKS

from cae_mm.engine.sharding import gathered

try:
    import resource
except ImportError:  # Windows
    resource = None

# Dense bfloat16 peak of one device in FLOP/s, accumulated in float32, from the vendor's data sheets and
# white papers. The first pattern that is found in the device's name as whole words counts; where the name
# has to end there, a longer one is another device, such as a laptop's.
PEAK_FLOPS = {
    'GB200': 2500e12, 'B200': 2250e12, 'H200$': 989e12,
    'H100 PCIe': 756e12, 'H100 NVL': 835e12, 'H100': 989e12, 'H800': 989e12, 'H20': 148e12,
    'A100': 312e12, 'A800': 312e12, 'A40': 149.7e12, 'A30': 165e12, 'A10': 125e12,
    'L40S': 362e12, 'L40': 181e12, 'L4': 121e12,
    'RTX A6000$': 154.8e12, 'RTX A5000$': 111.1e12, 'RTX A4000$': 76.7e12,
    'RTX 5090$': 209.5e12, 'RTX 4090$': 165.2e12, 'RTX 3090$': 71e12,
}
# mmengine copies a whole history at each update of it.
HISTORY = 10000


@HOOKS.register_module()
class TrainingMonitor(RuntimeInfoHook):
    """Log losses, speed, memory and progress, and stop when a loss or gradient is not finite.

    It takes the place of mmengine's RuntimeInfoHook. On a GPU the values of the steps stay on the
    device until the next log line or checkpoint, so that no step waits for the host; a non-finite
    value stops the run at that point, before anything is saved. On CPU it stops at once.
    Beside the model's outputs it logs ``grad_norm``, ``images_per_s`` (all processes),
    ``data_share`` (part of the time spent waiting for data), ``memory`` (MB; the process's peak
    where there is no GPU), ``progress`` (percent) and, for a GPU with a known peak and a model with
    ``flops_per_image()`` (training FLOPs of one image), ``mfu``.

    Raises:
        FloatingPointError: with the iteration, its losses and the learning rate.
    """

    def before_train(self, runner) -> None:
        """Take the log interval from the run's LoggerHook."""
        super().before_train(runner)
        self.pending = []
        self.interval = next(
            (hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)), 50)
        self.peak_images_per_s = None
        self._start_window()

    def before_train_epoch(self, runner) -> None:
        """Leave what happened since the last epoch out of the speed."""
        super().before_train_epoch(runner)
        self._start_window()

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Leave the validation out of the speed."""
        super().after_val_epoch(runner, metrics)
        self._start_window()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None,
                         outputs: dict | None = None) -> None:
        """Keep the step's values; at a log line, or at once on CPU, read, check and log them."""
        values = dict(outputs or {})
        grad_norm = getattr(runner.optim_wrapper, 'last_grad_norm', None)
        if grad_norm is not None:
            values['grad_norm'] = grad_norm
        lr = next(iter(runner.optim_wrapper.get_lr().values()))[0]
        self.pending.append((runner.iter + 1, lr, values))
        self.steps += 1
        self.data_time += runner.message_hub.log_scalars['train/data_time'].current() \
            if 'train/data_time' in runner.message_hub.log_scalars else 0.
        logs = (self.every_n_inner_iters(batch_idx, self.interval)
                or self.end_of_epoch(runner.train_dataloader, batch_idx))
        if logs or not any(torch.is_tensor(v) and v.is_cuda for v in values.values()):
            self.flush(runner)
        if logs:
            self._log_speed(runner)

    def before_checkpoint(self, runner) -> None:
        """Read and check all values before a checkpoint is written."""
        self.flush(runner)

    def flush(self, runner) -> None:
        """Move the pending values to the log with one transfer, and check them."""
        pending, self.pending = self.pending, []
        tensors = [value.detach().reshape(()).float() for _, _, values in pending
                   for value in values.values() if torch.is_tensor(value)]
        numbers = iter(torch.stack([t.to(tensors[0].device) for t in tensors]).tolist()
                       if tensors else ())
        for iteration, lr, values in pending:
            values = {key: next(numbers) if torch.is_tensor(value) else value
                      for key, value in values.items()}
            self._check(iteration, lr, values)
            for key, value in values.items():
                runner.message_hub.update_scalar(f'train/{key}', value)

    @staticmethod
    def _check(iteration: int, lr: float, values: dict) -> None:
        checked = {key: value for key, value in values.items()
                   if 'loss' in key or key == 'grad_norm'}
        if all(math.isfinite(value) for value in checked.values()):
            return
        found = ', '.join(f'{key} {value:g}' for key, value in checked.items())
        raise FloatingPointError(
            f'not finite at iteration {iteration}: {found}, lr {lr:.4g}. Nothing was saved since; '
            'look at the images of that step, lower the learning rate, clip the gradients, or '
            'train in float32 (--no-amp), then --resume from the last good checkpoint')

    def _start_window(self) -> None:
        self.window_start, self.steps, self.data_time = time.perf_counter(), 0, 0.

    def _log_speed(self, runner) -> None:
        seconds = time.perf_counter() - self.window_start
        world = get_world_size()
        hub = runner.message_hub
        rate = self.steps * runner.train_dataloader.batch_sampler.batch_size * world / seconds
        hub.update_scalar('train/images_per_s', rate)
        hub.update_scalar('train/data_share', min(self.data_time / seconds, 1.))
        hub.update_scalar('train/progress', 100. * (runner.iter + 1) / runner.max_iters)
        if self.peak_images_per_s is None:  # A model knows the FLOPs of its step only behind the first.
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            known = device_peak_flops() if hasattr(model, 'flops_per_image') else None
            with gathered(runner.model), torch.no_grad():
                self.peak_images_per_s = known / model.flops_per_image() if known else 0.
        if self.peak_images_per_s:
            hub.update_scalar('train/mfu', rate / world / self.peak_images_per_s)
        # With a GPU, mmengine logs its memory under this name.
        if not torch.cuda.is_available() and resource:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            unit = 2**20 if sys.platform == 'darwin' else 2**10
            hub.update_scalar('train/memory', peak // unit)
        for buffer in hub.log_scalars.values():
            buffer.max_length = HISTORY
        self._start_window()


def device_peak_flops() -> float | None:
    """Return the dense bfloat16 peak of the current GPU in FLOP/s, None when unknown."""
    if not torch.cuda.is_available():
        return None
    return peak_flops(torch.cuda.get_device_name())


def peak_flops(name: str) -> float | None:
    """Return the dense bfloat16 peak of the GPU of this name in FLOP/s, None when unknown."""
    if ' MIG ' in name:  # a part of a device
        return None
    return next((peak for key, peak in PEAK_FLOPS.items() if re.search(rf'\b{key}\b', name)), None)
