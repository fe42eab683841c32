"""k-NN in the middle of a training."""
import json

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from cae_mm.evaluation import KNNHook


class Toy(BaseModel):
    """A model with a backbone, a dropout that needs random numbers, and a loss."""

    def __init__(self, backbone, preprocess):
        super().__init__(preprocess)
        self.backbone, self.dropout = backbone, nn.Dropout(0.5)

    def forward(self, inputs, data_samples=None, mode='loss'):
        return {'loss': self.dropout(self.backbone.encode(inputs)).square().mean()}


@pytest.fixture
def train(folder, backbone, preprocess, tmp_path):
    """Train two epochs from the same start, with or without hooks; the runner and the losses."""
    start = {name: value.clone() for name, value in backbone.state_dict().items()}

    def run(name, *hooks):
        backbone.load_state_dict(start)
        torch.manual_seed(0)
        images = [{'inputs': torch.full((3, 16, 16), i, dtype=torch.uint8)} for i in range(8)]
        runner = Runner(
            Toy(backbone, preprocess), str(tmp_path / name), custom_hooks=list(hooks),
            train_dataloader=dict(dataset=images, batch_size=4, num_workers=0,
                                  sampler=dict(type='DefaultSampler', shuffle=False)),
            train_cfg=dict(by_epoch=True, max_epochs=3), experiment_name=f'{name}_{tmp_path.name}',
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)))
        torch.manual_seed(1)  # the runner has seeded with its own random seed
        runner.train()
        files = list((tmp_path / name).glob('*/vis_data/scalars.json'))
        return runner, [json.loads(line) for line in files[0].read_text().splitlines()]

    return run


def test_hook_measures_and_changes_nothing(train, folder):
    plain, _ = train('plain')
    expected = {name: value.clone() for name, value in plain.model.state_dict().items()}
    hook = KNNHook(str(folder), interval=2, k=(1, 5), probe=True, batch_size=7)
    runner, records = train('hooked', hook)
    for name, value in runner.model.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert runner.model.training
    measured = [record for record in records if 'knn/top1_k5' in record]
    assert [record['step'] for record in measured] == [2, 3]  # every second epoch, and the last
    assert all(0 <= measured[0][key] <= 100 for key in ('knn/top1_k1', 'linear/top1'))
    assert not any('held_out' in key for key in measured[0])


def test_interval_below_one(folder):
    with pytest.raises(ValueError, match='interval=0'):
        KNNHook(str(folder), interval=0)
