"""One seed rules the order, the crops and the masks, whatever the workers, ranks and interruptions."""
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from PIL import Image

import cae_mm  # noqa: F401
from cae_mm.datasets import sampler as samplers

CONFIGS = Path(__file__).parents[2] / 'configs'
NUMBER = 12
# In steps of 4 pictures: two epochs, or as many iterations.
KINDS = {'pretrain/cae_vitt_demo': 'max_epochs', 'cls/finetune_cae_vitt_demo': 'max_epochs',
         'seg/upernet_cae_vitt_camvid': 'max_iters'}


@MODELS.register_module(force=True)
class Recorder(BaseModel):
    """Keeps, of each step, the number, the crop and the mask of each sample."""

    def __init__(self):
        super().__init__()
        self.layer, self.steps = torch.nn.Linear(1, 1), []

    def train_step(self, data, optim_wrapper):
        inputs = data['inputs']
        views = inputs['images'] if isinstance(inputs, dict) else inputs
        masks = inputs['mask'] if isinstance(inputs, dict) else [None] * len(views)
        self.steps.append({self.number(view): (
            view.numpy().tobytes(), None if mask is None else mask.numpy().tobytes())
            for view, mask in zip(views, masks, strict=True)})
        return dict(loss=torch.zeros(()))

    @staticmethod
    def number(view):
        """The number of a picture is in the channel that is the same everywhere."""
        return int(view[view.float().std((1, 2)).argmin()].float().mean()) // 20

    def forward(self, inputs, data_samples=None, mode='tensor'):
        raise NotImplementedError


@pytest.fixture
def pictures(tmp_path):
    """Twelve pictures for each layout: the first channel is the number, the others are the place."""
    across, down = np.meshgrid(np.arange(96), np.arange(80))
    for i in range(NUMBER):
        picture = np.stack([np.full_like(across, 20 * i + 10), across, down], -1).astype(np.uint8)
        for folder in ('train/cat', 'images/training'):
            path = tmp_path / folder / f'{i:02}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
        labels = tmp_path / f'annotations/training/{i:02}.png'
        labels.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((across % 11 + 1).astype(np.uint8)).save(labels)
    return tmp_path


@pytest.fixture
def record(pictures, tmp_path, monkeypatch):
    """A function that trains a config and gives, for each step, its samples by their numbers."""
    monkeypatch.setattr(Config, 'pretty_text', '')  # logging it takes longer than the training
    runs = iter(range(100))

    def run(name, seed=0, workers=0, rank=0, ranks=1, until=6, **changes):
        cfg = Config.fromfile(CONFIGS / f'{name}.py')
        init_default_scope(cfg.default_scope)
        monkeypatch.setattr(samplers, 'get_dist_info', lambda: (rank, ranks))
        length = KINDS[name]
        cfg.merge_from_dict({
            'train_dataloader.batch_size': 4 // ranks, 'train_dataloader.num_workers': workers,
            'train_dataloader.persistent_workers': workers > 0, 'train_dataloader.pin_memory': False,
            'train_dataloader.dataset.dataset.data_root': str(pictures), 'randomness.seed': seed,
            f'train_cfg.{length}': until // (3 if length == 'max_epochs' else 1),
            'default_hooks.checkpoint.interval': 2, 'default_hooks.checkpoint.max_keep_ckpts': -1,
            'default_hooks.checkpoint.by_epoch': False,
            'experiment_name': f'{tmp_path.name}_{next(runs)}', 'work_dir': str(tmp_path / 'work'),
            **changes})
        for part in ('custom_hooks', 'param_scheduler', 'data_preprocessor', 'val_dataloader', 'val_cfg',
                     'val_evaluator', 'test_dataloader', 'test_cfg', 'test_evaluator'):
            cfg[part] = None
        cfg.default_hooks.pop('classes', None)
        cfg.model = dict(type='Recorder')
        cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
        data = cfg.train_dataloader.dataset.dataset
        if 'seg' in name:
            data.update(img_suffix='.png', pipeline=[
                step for step in data.pipeline if step.type != 'PhotoMetricDistortion'])
            data.pipeline[3].crop_size = (48, 48)
        runner = Runner.from_cfg(cfg)
        runner.train()
        return runner.model.steps

    return run


@pytest.mark.parametrize('name', KINDS)
def test_two_seeds_differ_in_all_and_equal_seeds_in_nothing(record, name):
    first, again, other = record(name), record(name, workers=2), record(name, seed=1)
    assert first == again
    assert [sorted(step) for step in first] != [sorted(step) for step in other]
    one, two = ({number: sample for step in steps[:3] for number, sample in step.items()}
                for steps in (first, other))
    assert one.keys() == two.keys() == set(range(NUMBER))
    for number in one:
        assert one[number][0] != two[number][0]
    if name.startswith('pretrain'):
        assert sum(one[number][1] == two[number][1] for number in one) == 0


@pytest.mark.parametrize('name', ['pretrain/cae_vitt_demo', 'seg/upernet_cae_vitt_camvid'])
def test_ranks_do_not_matter(record, name):
    whole = record(name, seed=3)
    shares = [record(name, seed=3, rank=rank, ranks=2) for rank in range(2)]
    assert [left | right for left, right in zip(*shares, strict=True)] == whole


@pytest.mark.parametrize('workers, other', [(0, 6), (1, None)])
@pytest.mark.parametrize('name', ['pretrain/cae_vitt_demo', 'seg/upernet_cae_vitt_camvid'])
def test_a_resumed_run_has_the_seed_of_its_checkpoint(record, name, workers, other, tmp_path):
    whole = record(name, seed=5)
    resumed = record(name, seed=other, workers=workers, resume=True,
                     load_from=str(tmp_path / 'work/iter_2.pth'))
    assert resumed == whole[2:]


def test_ranks_with_seeds_of_their_own_share_one_order(record, monkeypatch):
    name, settings = 'pretrain/cae_vitt_demo', {'randomness.diff_rank_seed': True}

    def broadcast(seed):
        seed.fill_(7)  # that of the first rank

    whole = record(name, seed=7)
    monkeypatch.setattr('mmengine.runner.utils.get_rank', lambda: 1)
    monkeypatch.setattr('cae_mm.engine.loops.broadcast', broadcast)
    mine = record(name, seed=7, rank=1, ranks=2, **settings)
    assert all(share.items() <= step.items() for share, step in zip(mine, whole, strict=True))
