"""A runner that trains a line on twelve points: everything of a run but its size."""
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmpretrain.registry import DATASETS, HOOKS, MODELS, RUNNERS

import cae_mm  # noqa: F401


@DATASETS.register_module()
class Points(torch.utils.data.Dataset):
    """Twelve points of a line."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return dict(inputs=torch.tensor([index / 12]), data_samples=torch.tensor([index / 4]))


@MODELS.register_module()
class Line(BaseModel):
    """A noisy linear model; its loss is infinite at iteration ``bad_iter``."""

    def __init__(self, bad_iter=None):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.bad_iter, self.calls, self.seen = bad_iter, 0, []

    def forward(self, inputs, data_samples=None, mode='loss'):
        self.calls += 1
        self.seen += (12 * inputs.flatten()).round().int().tolist()
        noise = 1 + 0.1 * torch.randn(())
        loss = (self.layer(inputs) * noise - data_samples).square().mean()
        return dict(loss_line=loss * float('inf') if self.calls == self.bad_iter else loss)


@HOOKS.register_module()
class Poison(Hook):
    """Destroys a weight after the losses of the second epoch were computed."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 5:
            runner.model.layer.weight.data.fill_(float('nan'))


@pytest.fixture
def toy_runner(tmp_path):
    """A function that builds a runner of 2 epochs of 3 batches, with changes to its config."""
    counter = iter(range(100))

    def build(**changes):
        cfg = Config(dict(
            default_scope='mmpretrain', work_dir=str(tmp_path / 'work'),
            experiment_name=f'{tmp_path.name}_{next(counter)}',
            model=dict(type='Line'),
            train_dataloader=dict(
                batch_size=4, num_workers=0, dataset=dict(type='Points'),
                sampler=dict(type='DefaultSampler', shuffle=True, seed=0),
                collate_fn=dict(type='default_collate')),
            train_cfg=dict(type='ResumableEpochLoop', max_epochs=2),
            optim_wrapper=dict(type='AutocastOptimWrapper',
                               constructor='LayerDecayOptimWrapperConstructor',
                               optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.05),
                               clip_grad=dict(max_norm=3.)),
            param_scheduler=dict(type='WarmupCosineLR', warmup_epochs=1, by_epoch=True,
                                 convert_to_iter_based=True),
            default_hooks=dict(runtime_info=dict(type='TrainingMonitor'),
                               logger=dict(type='LoggerHook', interval=1),
                               checkpoint=dict(type='SafeCheckpointHook', interval=1)),
            randomness=dict(seed=0)))
        cfg.train_cfg = changes.pop('train_cfg', cfg.train_cfg)  # whole, for another kind of loop
        cfg.merge_from_dict(changes)
        return RUNNERS.get(cfg.get('runner_type', 'Runner')).from_cfg(cfg)

    return build
