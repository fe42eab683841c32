"""An interrupted run continues with the numbers of one that was not."""
import pytest
import torch
from mmengine.config import Config

COUNTED = {'train_dataloader.dataset': dict(type='ReproducibleDataset', dataset=dict(type='Points')),
           'train_dataloader.sampler': dict(type='EpochSampler')}
ENDLESS = {**COUNTED, 'train_dataloader.sampler': dict(type='EndlessSampler'),
           'train_cfg': dict(type='ResumableIterLoop', max_iters=6), 'param_scheduler': None}
EVERY_ITERATION = {'default_hooks.checkpoint': dict(
    type='SafeCheckpointHook', interval=1, by_epoch=False)}


def weights(runner):
    return torch.cat([p.detach().flatten() for p in runner.model.parameters()])


@pytest.mark.parametrize('iteration', [1, 3, 4])
@pytest.mark.parametrize('data', [{}, COUNTED, ENDLESS])
def test_resume(toy_runner, tmp_path, iteration, data):
    changes = {**data, **EVERY_ITERATION}
    whole = toy_runner(**changes)
    whole.train()
    resumed = toy_runner(load_from=str(tmp_path / f'work/iter_{iteration}.pth'), resume=True,
                         **changes)
    resumed.train()
    assert resumed.model.calls == 6 - iteration
    assert torch.equal(weights(resumed), weights(whole))


def test_another_epoch_length(toy_runner, tmp_path):
    toy_runner(**EVERY_ITERATION).train()
    changed = toy_runner(load_from=str(tmp_path / 'work/iter_5.pth'), resume=True,
                         **{'train_dataloader.batch_size': 8, **EVERY_ITERATION})
    with pytest.raises(ValueError, match='iteration 5 in epoch 1.*2 batches per epoch'):
        changed.train()


def test_epochs_end_with_whole_accumulated_steps(toy_runner, tmp_path):
    changes = {**COUNTED, 'optim_wrapper.accumulative_counts': 2, **EVERY_ITERATION}
    whole = toy_runner(**changes)
    whole.train()
    assert whole.iter == 4  # of three batches per epoch the last makes no step
    resumed = toy_runner(load_from=str(tmp_path / 'work/iter_2.pth'), resume=True, **changes)
    resumed.train()
    assert torch.equal(weights(resumed), weights(whole))


def test_accumulation_of_a_built_optimizer(toy_runner):
    runner = toy_runner(**COUNTED, **{'optim_wrapper.accumulative_counts': 2})
    runner.optim_wrapper, runner.cfg = runner.build_optim_wrapper(runner.optim_wrapper), Config()
    assert len(runner.build_train_loop(runner._train_loop).dataloader) == 2


def test_too_few_images(toy_runner):
    with pytest.raises(ValueError, match='12 images per process do not make one batch of 16'):
        toy_runner(**{'train_dataloader.batch_size': 16, 'train_dataloader.drop_last': True}).train()


@pytest.mark.parametrize('changes, message', [
    ({'train_dataloader.dataset': COUNTED['train_dataloader.dataset']},
     'DefaultSampler with a training by epochs .* repeat its first epoch.*mmpretrain.EpochSampler'),
    ({**COUNTED, 'train_cfg': ENDLESS['train_cfg']}, 'EpochSampler .* by iterations.*EndlessSampler'),
    ({**COUNTED, 'train_dataloader.sampler': dict(type='EndlessSampler')}, 'EndlessSampler .* by epochs')])
def test_parts_that_do_not_fit(toy_runner, changes, message):
    with pytest.raises(TypeError, match=message):
        toy_runner(**changes).train()
