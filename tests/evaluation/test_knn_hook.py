"""k-NN in the middle of a training."""
import json

import pytest
import torch
from mmengine.dist import get_rank
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn

from cae_mm.evaluation import KNNHook, features, knn_hook
from cae_mm.evaluation.protocol import measure, prepare


class Toy(BaseModel):
    """A model with a backbone, a dropout that needs random numbers, and a loss."""

    def __init__(self, backbone, preprocess):
        super().__init__(preprocess)
        self.backbone, self.dropout = backbone, nn.Dropout(0.5)

    def forward(self, inputs, data_samples=None, mode='loss'):
        if mode != 'loss':
            return [BaseDataElement()]
        return {'loss': self.dropout(self.backbone.encode(inputs)).square().mean()}


class Nothing(BaseMetric):
    """A metric that measures nothing."""

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {}


@pytest.fixture
def build(backbone, preprocess, tmp_path, monkeypatch):
    """A function that builds the runner of three epochs from the same start, with or without hooks."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    start = {name: value.clone() for name, value in backbone.state_dict().items()}

    def run(name, *hooks, **settings):
        backbone.load_state_dict(start)
        torch.manual_seed(0)
        images = [{'inputs': torch.full((3, 16, 16), i, dtype=torch.uint8)} for i in range(8)]
        loader = dict(dataset=images, batch_size=4, num_workers=0,
                      sampler=dict(type='DefaultSampler', shuffle=False))
        return Runner(
            Toy(backbone, preprocess), str(tmp_path / name), custom_hooks=list(hooks),
            experiment_name=f'{name}_{tmp_path.name}', **settings or dict(
                train_dataloader=loader, train_cfg=dict(by_epoch=True, max_epochs=3),
                optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
                launcher='pytorch' if torch.distributed.is_initialized() else 'none', cfg=dict(
                    model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None))))

    return run


@pytest.fixture
def train(build, tmp_path):
    """A function that trains and gives weights, logged numbers and text; on ranks, those of this rank."""
    def run(name, *hooks):
        runner = build(name, *hooks)
        torch.manual_seed(1)  # the runner has seeded with its own random seed
        runner.train()
        assert runner.model.training
        files = [*(tmp_path / name).glob('*/vis_data/scalars.json')]
        records = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        text = ''.join(file.read_text() for file in (tmp_path / name).glob('*/*.log'))
        weights = {name: value.numpy() for name, value in runner.model.state_dict().items()}
        return weights, [record for record in records if 'knn/top1_k5' in record], text

    return run


def equal(weights, others):
    return weights.keys() == others.keys() and all((weights[k] == others[k]).all() for k in weights)


def test_hook_measures_and_changes_nothing(train, folder):
    plain, _, _ = train('plain')
    hook = KNNHook(str(folder), interval=2, k=(1, 5), probe=True, batch_size=7)
    weights, measured, _ = train('hooked', hook)
    assert equal(weights, plain)
    assert [record['step'] for record in measured] == [2, 3]  # every second epoch, and the last
    assert all(0 <= measured[0][key] <= 100 for key in ('knn/top1_k1', 'linear/top1'))
    assert not any('held_out' in key for key in measured[0])


def test_two_ranks_measure_as_one(train, folder, backbone, preprocess, on_ranks, monkeypatch):
    """Both see images, both know the numbers, and these are the numbers of one rank."""
    seen, pool = [], features.pool
    monkeypatch.setattr(features, 'pool', lambda *args: seen.append(1) or pool(*args))

    def work(*hooks):
        return *train(f'two{len(hooks)}', *hooks), len(seen)

    settings = dict(k=(1, 5), probe=True)
    hook = KNNHook(str(folder), batch_size=7, **settings)
    plain, _ = on_ranks(2, work)
    (weights, [measured], _, batches), (others, _, _, others_batches) = on_ranks(2, lambda: work(hook))
    assert equal(weights, plain[0]) and equal(weights, others)
    assert (batches, others_batches) == (3 + 2, 3 + 1)  # of 36 / 7 and 18 / 7

    backbone.load_state_dict({name.removeprefix('module.backbone.'): torch.tensor(value)
                              for name, value in weights.items() if 'backbone' in name})
    expected = measure(backbone, preprocess, prepare(backbone, folder, batch_size=7), progress=False,
                       **settings)
    for name in ('knn/top1_k1', 'knn/top1_k5'):
        assert measured[name] == expected[name]
    assert measured['linear/top1'] == pytest.approx(expected['linear/top1'], abs=6)  # one image of 18


def test_a_rank_without_memory_does_not_end_the_training(train, folder, on_ranks, monkeypatch):
    """The second rank fails in the first of its batches in epoch 2."""
    calls, pool = [], features.pool

    def exhausted(*args):
        calls.append(args)
        if get_rank() == 1 and len(calls) == 5:
            raise torch.OutOfMemoryError('no memory')
        return pool(*args)

    monkeypatch.setattr(features, 'pool', exhausted)
    hook = KNNHook(str(folder), interval=1, k=(1, 5), batch_size=7)
    (weights, measured, text), (others, _, _) = on_ranks(2, lambda: train('failing', hook))
    assert [record['step'] for record in measured] == [1, 3]
    assert 'Epoch 2: k-NN failed, the training goes on: RankError: rank 1: OutOfMemoryError: no mem' in text
    plain = on_ranks(2, lambda: train('plain'))
    assert equal(weights, plain[0][0]) and equal(others, plain[0][0])


@pytest.mark.parametrize('right', [[], [0]])
def test_a_wrong_folder_on_any_rank_ends_the_run_before_it_starts(train, folder, on_ranks, right, tmp_path):
    def work():
        train('wrong', KNNHook(str(folder if get_rank() in right else folder / 'nowhere')))

    found = on_ranks(2, work)
    assert len({str(error) for error in found}) == 1
    ranks = 'rank 1' if right else 'rank 0, 1'
    assert str(found[0]).startswith(f'{ranks}: FileNotFoundError: there is no folder {folder}/nowhere')
    assert not [*(tmp_path / 'wrong').glob('*.pth')]


@pytest.mark.parametrize('settings, message', [
    (dict(k=(10, 40)), r'k=\(10, 40\) with 36 training images'), (dict(feature='max'), "feature='max'"),
])
def test_wrong_settings_before_the_training(train, folder, settings, message, monkeypatch):
    monkeypatch.setattr(Toy, 'forward', None)
    with pytest.raises(ValueError, match=message):
        train('wrong', KNNHook(str(folder), **settings))


def test_measured_when_the_checkpoint_is_written(train, folder, tmp_path, monkeypatch):
    """So that whatever ends the measurement does not cost the epoch; what Python raises is a warning."""
    written = []

    def fail(*args, **kwargs):
        written.append(sorted(path.name for path in (tmp_path / 'failing').glob('*.pth')))
        raise MemoryError('too large')

    monkeypatch.setattr(knn_hook, 'measure', fail)
    _, measured, text = train('failing', KNNHook(str(folder), interval=2))
    assert written == [['epoch_1.pth', 'epoch_2.pth'], ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth']]
    assert not measured and 'Epoch 2: k-NN failed, the training goes on: MemoryError: too large' in text


def test_a_test_run_needs_no_folder(build):
    loader = dict(dataset=[{'inputs': torch.zeros(3, 16, 16)}], batch_size=1, num_workers=0,
                  sampler=dict(type='DefaultSampler'))
    build('test', KNNHook('nowhere'), test_dataloader=loader, test_cfg=dict(),
          test_evaluator=Nothing()).test()


def test_interval_below_one(folder):
    with pytest.raises(ValueError, match='interval=0'):
        KNNHook(str(folder), interval=0)
