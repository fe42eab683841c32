"""A run goes on with another batch size at the same place in data and schedule; a wrong one is named."""
import re
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmpretrain.registry import DATASETS, HOOKS

from cae_mm.datasets import sampler
from cae_mm.engine import batch_size

DATA = {'train_dataloader.dataset': dict(type='ReproducibleDataset', dataset=dict(type='Points')),
        'default_hooks.batch_size': dict(type='BatchSizeHook'), 'custom_hooks': [dict(type='Rates')]}
# The sampler, the settings of the loop for some 48 images, and the schedules.
KINDS = {
    'epochs': ('EpochSampler', dict(type='ResumableEpochLoop', max_epochs=4), [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=4),
        dict(type='CosineAnnealingLR', T_max=4, begin=1, by_epoch=True, convert_to_iter_based=True),
        dict(type='MultiStepLR', milestones=[1, 3], by_epoch=True)]),
    'iterations': ('EndlessSampler', dict(type='ResumableIterLoop', max_iters=12), [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=4),
        dict(type='PolyLR', power=2., begin=4, by_epoch=False)])}


@DATASETS.register_module(force=True)
class RepeatedPoints(DATASETS.get('Points')):
    """Twice as many."""

    def __len__(self):
        return 24


@HOOKS.register_module(force=True)
class Rates(Hook):
    """Keeps the learning rate of each iteration."""

    def before_train(self, runner):
        runner.rates = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        runner.rates[runner.iter] = runner.optim_wrapper.get_lr()['lr'][0]


@pytest.fixture
def train(toy_runner):
    """A function that trains with so many points in an iteration, its settings times ``ratio``."""
    def run(kind, size, ratio=1, resume=None, save=100, **changes):
        order, loop, schedules = KINDS[kind]
        loop = {key: int(value * ratio) if key == 'max_iters' else value for key, value in loop.items()}
        schedules = [dict(one, **{key: round(one[key] * ratio) for key in one.keys() & {'begin', 'end'}
                                  if not one['by_epoch']}) for one in schedules]
        if resume:
            changes = dict(changes, load_from=str(resume), resume=True)
        runner = toy_runner(**{
            **DATA, 'train_cfg': loop, 'param_scheduler': schedules, 'train_dataloader.batch_size': size,
            'train_dataloader.sampler': dict(type=order), 'default_hooks.checkpoint': dict(
                type='SafeCheckpointHook', interval=save, by_epoch=False, save_last=False), **changes})
        runner.train()
        return runner
    return run


def log_of(runner):
    return next(Path(runner.log_dir).glob('*.log')).read_text()


@pytest.mark.parametrize('before, after, seen', [(4, 2, 24), (2, 4, 18), (2, 3, 16)])
@pytest.mark.parametrize('kind', KINDS)
def test_same_place_in_data_and_schedule(train, tmp_path, kind, before, after, seen):
    first = train(kind, before, save=seen // before)
    resumed = train(kind, after, resume=tmp_path / f'work/iter_{seen // before}.pth')
    assert resumed.iter == resumed.max_iters == first.max_iters * before / after
    begin = seen // after if kind == 'iterations' else 12 // after + (seen - 12) // after
    assert resumed.model.seen == first.model.seen[begin * after:]
    # The rates are those of a run that had this size, and settings for it, from the start.
    whole = train(kind, after, before / after)
    assert resumed.rates == {key: pytest.approx(rate) for key, rate in whole.rates.items() if key >= begin}
    assert re.search(f'{after} images per iteration, {before} when .*iteration {seen // before} is now '
                     f'{begin} of {resumed.max_iters}; ', log_of(resumed))


@pytest.mark.parametrize('kind', KINDS)
def test_more_processes(train, tmp_path, monkeypatch, kind):
    first = train(kind, 4, save=4)
    monkeypatch.setattr(batch_size, 'get_world_size', lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(sampler, 'get_dist_info', lambda rank=rank: (rank, 3))
        shares.append(train(kind, 2, resume=tmp_path / 'work/iter_4.pth').model.seen)
    # Of 16 images two steps had six, which is an epoch too; the other four are seen again.
    assert [point for step in zip(*shares, strict=True) for point in step] == first.model.seen[12:]


@pytest.mark.parametrize('kind', KINDS)
def test_settings_keep_counting_in_iterations_of_the_first_size(train, tmp_path, kind):
    train(kind, 4, save=3)
    once = train(kind, 2, save=10, resume=tmp_path / 'work/iter_3.pth')
    again = train(kind, 2, resume=tmp_path / 'work/iter_10.pth')
    assert again.max_iters == once.max_iters == 24
    assert again.rates == {key: rate for key, rate in once.rates.items() if key >= 10}
    assert again.model.seen == once.model.seen[-len(again.model.seen):]
    back = train(kind, 4, resume=tmp_path / 'work/iter_10.pth')
    assert back.iter == back.max_iters == 12 and len(back.rates) == 7


def test_another_length_counts_in_iterations_of_the_new_size(train, tmp_path):
    train('iterations', 4, save=3)
    longer = train('iterations', 2, ratio=1.5, resume=tmp_path / 'work/iter_3.pth')
    assert longer.iter == 18 and len(longer.rates) == 12


def test_the_rate_of_the_config(train, tmp_path):
    train('epochs', 4, save=6)
    changes = {'optim_wrapper.optimizer.lr': 0.3}
    resumed = train('epochs', 2, resume=tmp_path / 'work/iter_6.pth', **changes)
    whole = train('epochs', 2, ratio=2, **changes)
    assert resumed.rates == {key: pytest.approx(rate) for key, rate in whole.rates.items() if key >= 12}


@pytest.mark.parametrize('kind', KINDS)
def test_accumulated_steps_stay_whole(train, tmp_path, kind):
    train(kind, 4, save=2)
    changes = {'optim_wrapper.accumulative_counts': 3}
    resumed = train(kind, 1, resume=tmp_path / 'work/iter_2.pth', **changes)
    assert min(resumed.rates) == 6 and resumed.iter == 48


def test_nothing_is_converted_where_nothing_changed(train, tmp_path):
    whole = train('epochs', 4, save=5)
    resumed = train('epochs', 4, resume=tmp_path / 'work/iter_5.pth')
    assert 'when the checkpoint was written' not in log_of(resumed)
    assert torch.equal(resumed.model.layer.weight, whole.model.layer.weight)


def test_other_data_too_are_refused(train, tmp_path):
    train('epochs', 4, save=5)
    with pytest.raises(ValueError, match='of 12 images has 24 now, and iterations of 4 have 2: resume'):
        train('epochs', 2, resume=tmp_path / 'work/iter_5.pth', **{
            'train_dataloader.dataset.dataset': dict(type='RepeatedPoints')})


@pytest.mark.parametrize('settings, warns', [
    (dict(base_batch_size=8), True), (dict(base_batch_size=4), False), (None, False),
    (dict(base_batch_size=8, enable=True), False)])
def test_a_batch_size_that_the_rate_is_not_for(train, settings, warns):
    runner = train('epochs', 2, auto_scale_lr=settings, **{'optim_wrapper.accumulative_counts': 2})
    line = 'the learning rate is for steps of 8 images, and these have 4: 1 processes x 2 x 2 accumulated'
    assert log_of(runner).count(line) == warns
