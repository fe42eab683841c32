"""How many images make a step: those that the rate is for, and a run that goes on with others."""
import copy
import warnings

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS

# Settings of schedules that are iterations, unless the schedule is by epoch.
LENGTHS = {'begin', 'end', 'warmup_iters', 'T_max', 'step_size', 'total_steps', 'milestones'}


@HOOKS.register_module()
class BatchSizeHook(Hook):
    """Warn of a batch size that the learning rate is not for, and let a run go on with another one.

    A run that resumes with another batch size or number of processes than its checkpoint's goes on at
    the same place in the data, rounded down to a whole step. Iterations become those of the new size:
    the position, ``max_iters`` and the lengths of schedules, which are stepped to that position; the
    learning rate is the config's. Settings count in iterations of the size with which the run began;
    those that come with another ``max_iters`` in iterations of the new one.

    Raises:
        ValueError: when the data set has another number of images, too.
    """

    def before_run(self, runner):
        """Note of what size the iterations in the settings are."""
        if isinstance(runner._train_loop, BaseLoop):
            self.by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
            self.max_iters = None if self.by_epoch else runner.max_iters
            self.unit = images_per_iteration(runner)

    def before_train(self, runner):
        """Compare the images of a step with those that the learning rate is for."""
        settings, images = runner.auto_scale_lr or {}, images_per_iteration(runner) * accumulated(runner)
        base = settings.get('base_batch_size')
        if base not in (None, images) and not settings.get('enable'):
            runner.logger.warning(
                f'the learning rate is for steps of {base} images, and these have {images}: '
                f'{get_world_size()} processes x {batch_size(runner)} x {accumulated(runner)} accumulated. '
                '--auto-scale-lr adapts it')

    def before_save_checkpoint(self, runner, checkpoint):
        """Record what a run with another batch size has to know."""
        checkpoint['meta']['images'] = dict(
            per_iteration=images_per_iteration(runner), unit=self.unit, max_iters=self.max_iters,
            epoch_length=len(runner.train_dataloader), dataset=len(runner.train_dataloader.dataset))

    def after_load_checkpoint(self, runner, checkpoint):
        """Convert the position and the schedules in a checkpoint of another batch size."""
        saved = checkpoint.get('meta', {}).get('images')
        if not runner._resume or saved is None:
            return
        if self.max_iters == saved['max_iters']:
            self.unit = saved['unit']
        images, before = images_per_iteration(runner), saved['per_iteration']
        if images == before == self.unit:
            return
        dataset = len(runner.train_dataloader.dataset)
        if dataset != saved['dataset']:
            raise ValueError(f'the data set of {saved["dataset"]} images has {dataset} now, and iterations '
                             f'of {before} have {images}: resume with one of both as it was')
        meta, length = checkpoint['meta'], len(runner.train_dataloader)
        old, epoch = meta['iter'], meta['epoch'] if self.by_epoch else 0
        seen = (old - epoch * saved['epoch_length']) * before
        step = images * accumulated(runner)
        done = seen // step * accumulated(runner)
        meta['iter'] = epoch * length + (min(done, length) if self.by_epoch else done)
        if not self.by_epoch:
            runner.train_loop._max_iters = -(-self.max_iters * self.unit // images)
        if runner.param_schedulers is not None:
            self._step_schedules(runner, meta['iter'], epoch, self.unit / images)
            checkpoint['param_schedulers'] = [one.state_dict() for one in runner.param_schedulers]
            optimizer = checkpoint.get('optimizer', {})
            groups = [*optimizer.get('param_groups', ()), optimizer.get('base_param_settings', {})]
            for group, new in zip(groups, runner.optim_wrapper.param_groups, strict=False):
                group.update({key: new[key] for key in new if f'initial_{key}' in new or 'initial_' in key})
        runner.logger.info(
            f'{images} images per iteration, {before} when the checkpoint was written: after {seen} images '
            f'{f"of epoch {epoch + 1}, " * self.by_epoch}iteration {old} is now {meta["iter"]} of '
            f"{runner.max_iters}; the schedules are converted, the learning rate is the config's")

    def _step_schedules(self, runner, iteration, epoch, ratio):
        """Build the schedules with other lengths, and step them as a training does."""
        settings = copy.deepcopy(runner.cfg.param_scheduler)
        for one in settings if isinstance(settings, list) else [settings]:
            for key in LENGTHS & one.keys() if not one.get('by_epoch', True) else ():
                one[key] = ([round(value * ratio) for value in one[key]] if key == 'milestones'
                            else round(one[key] * ratio))
        for group in runner.optim_wrapper.param_groups:
            group.update({key.removeprefix('initial_'): group[key] for key in group if 'initial_' in key})
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of steps without those of the optimizer
            schedules = runner.param_schedulers = runner.build_param_scheduler(settings)
            for done in range(1, iteration + 1):
                ends = self.by_epoch and done % len(runner.train_dataloader) == 0
                for one in schedules:
                    if not one.by_epoch or ends and done // len(runner.train_dataloader) <= epoch:
                        one.step()


def batch_size(runner: Runner) -> int:
    """Images of an iteration in one process."""
    return runner.train_dataloader.batch_sampler.batch_size


def images_per_iteration(runner: Runner) -> int:
    """Images of an iteration in all processes."""
    return batch_size(runner) * get_world_size()


def accumulated(runner: Runner) -> int:
    """Iterations that make a step of the optimizer, which may not be built yet."""
    wrapper = runner.optim_wrapper
    return (wrapper.get('accumulative_counts', 1) if isinstance(wrapper, dict)
            else getattr(wrapper, '_accumulative_counts', 1))
