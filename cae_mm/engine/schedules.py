"""Learning-rate schedule of the pre-training and fine-tuning recipes."""
import math

from mmengine.optim.scheduler.param_scheduler import INF, _ParamScheduler
from mmpretrain.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(_ParamScheduler):
    """Linear warm-up from exactly 0, then a half cosine towards ``min_lr``.

    With W warm-up steps of T in all, the peak is reached at step W, and with ``endpoint`` at step
    W - 1 already; the cosine would reach ``min_lr`` at step T, one after the last. The peak is the
    optimizer's learning rate. A group with an ``lr_scale`` follows the whole schedule, ``min_lr`` included,
    times its scale. Under gradient accumulation all steps are those of the optimizer. Use
    ``by_epoch=True, convert_to_iter_based=True`` in a config to give the warm-up in epochs and
    change the rate at every iteration.

    Args:
        optimizer (OptimWrapper | Optimizer): the optimizer whose groups are scheduled.
        warmup_epochs (float, optional): warm-up in epochs, with ``by_epoch=True``.
        warmup_iters (int, optional): warm-up in iterations, with ``by_epoch=False``.
        min_lr (float): rate that the cosine tends to, not scaled with the batch size.
        endpoint (bool): whether the last warm-up step has the peak rate, as in pre-training,
            fine-tuning and attentive probing, or the step after it, as in linear probing.
        begin (int): first step of the schedule.
        end (int): step after the last one. The runner gives the length of the training.
        by_epoch (bool): whether a step is an epoch or an iteration.

    Raises:
        ValueError: when the warm-up is not given in the schedule's unit, or the end is unknown.

    Source: the schedules of the official scripts for pre-training, fine-tuning and probing.
    """

    def __init__(self, optimizer, warmup_epochs: float | None = None,
                 warmup_iters: int | None = None, min_lr: float = 0., endpoint: bool = True,
                 begin: int = 0, end: int = INF, last_step: int = -1, by_epoch: bool = True,
                 verbose: bool = False):
        wanted, other = ('warmup_epochs', 'warmup_iters') if by_epoch else (
            'warmup_iters', 'warmup_epochs')
        given = dict(warmup_epochs=warmup_epochs, warmup_iters=warmup_iters)
        if given[wanted] is None or given[other] is not None:
            raise ValueError(f'by_epoch={by_epoch} needs {wanted} and no {other}, got {given}')
        if end == INF:
            raise ValueError('WarmupCosineLR needs `end`, the length of the schedule')
        self.warmup = given[wanted]
        self.min_lr, self.endpoint = min_lr, endpoint
        self.updates_every = 1 if by_epoch else getattr(optimizer, '_accumulative_counts', 1)
        super().__init__(optimizer, 'lr', begin, end, last_step, by_epoch, verbose)

    @classmethod
    def build_iter_from_epoch(cls, *args, warmup_epochs: float, epoch_length: int, begin: int = 0,
                              end: int = INF, by_epoch: bool = True, **kwargs):
        """Build the per-iteration schedule from lengths given in epochs."""
        return cls(*args, warmup_iters=int(warmup_epochs * epoch_length),
                   begin=int(begin * epoch_length),
                   end=end if end == INF else int(end * epoch_length), by_epoch=False, **kwargs)

    def _get_value(self):
        every = self.updates_every
        step, warmup = self.last_step // every, self.warmup // every
        total = (self.end - self.begin) // every
        values = []
        for group, base in zip(self.optimizer.param_groups, self.base_values, strict=True):
            scale = group.get('lr_scale', 1.)
            peak = base / scale
            if step < warmup:
                value = peak * step / max(warmup - self.endpoint, 1)
            else:
                done = min((step - warmup) / max(total - warmup, 1), 1.)
                value = self.min_lr + 0.5 * (peak - self.min_lr) * (1 + math.cos(math.pi * done))
            values.append(value * scale)
        return values
