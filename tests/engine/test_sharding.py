"""A model in several processes: shared out between them it trains as one that is whole in each."""
import os
import re
import shutil
import signal
import time

import pytest
import torch
import torchrun
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmpretrain.registry import DATASETS, HOOKS
from mmpretrain.structures import DataSample
from torch.distributed.launcher import api

from cae_mm.checkpoint.files import read_checkpoint
from cae_mm.engine import launch
from cae_mm.engine.hangs import HangHook
from cae_mm.engine.runner import TrainingRunner

WIDTHS = dict(embed_dims=20, num_heads=2, depth=2)
CAE = dict(
    type='ContextAutoencoder',
    backbone=dict(type='CAEViT', img_size=16, patch_size=4, drop_path_rate=0.3,
                  arch=dict(embed_dims=24, num_layers=3, num_heads=2)),
    neck=dict(type='LatentContextualRegressor', grid_size=4, in_dims=24, **WIDTHS),
    head=dict(type='CAEDecoder', grid_size=4, num_outputs=16, **WIDTHS),
    target_generator=dict(type='DiscreteVAE', num_codes=16, hidden_dims=8, allow_random=True))
CLASSIFIER = dict(
    type='ImageClassifier', data_preprocessor=dict(mean=[128] * 3, std=[64] * 3),
    backbone=dict(CAE['backbone'], out_type='avg_featmap', use_rel_pos_bias=True),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=24))


@DATASETS.register_module()
class Noise(torch.utils.data.Dataset):
    """Twelve images of noise, with their masks, or with their classes."""

    def __init__(self, classes=False):
        self.classes = classes

    def __len__(self):
        return 12

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(256, (3, 16, 16), generator=generator, dtype=torch.uint8)
        if self.classes:
            return dict(inputs=image, data_samples=DataSample().set_gt_label(index % 3))
        mask = torch.randperm(16, generator=generator) < 8
        view = torch.randint(256, (3, 32, 32), generator=generator, dtype=torch.uint8)
        return dict(inputs=dict(images=image, target_images=view, mask=mask))


@HOOKS.register_module()
class Collect(Hook):
    """Keeps the losses and the norms of the gradients."""

    def before_train(self, runner):
        runner.found = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        runner.found.append([float(outputs['loss']), float(runner.optim_wrapper.last_grad_norm or 0)])


@HOOKS.register_module()
class Accident(Hook):
    """Kills the second process in the third step of its first start, or lets it hang there."""
    priority = 'LOWEST'  # after the hook that takes signals

    def __init__(self, kind):
        self.kind = kind

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 2 and os.environ['TORCHELASTIC_RESTART_COUNT'] == '0' and get_rank() == 1:
            if self.kind == 'killed':
                os.kill(os.getpid(), signal.SIGKILL)
            [watch] = [hook for hook in runner.hooks if isinstance(hook, HangHook)]
            watch.place -= 1  # as if its data had not come
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(1000)


@pytest.fixture
def train(tmp_path, monkeypatch):
    """A function that trains and gives the losses; in a process of a group, with that group."""
    monkeypatch.setattr(Config, 'pretty_text', '')
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    monkeypatch.setenv('LOCAL_RANK', '0')

    def run(work, steps=20, model=CAE, wrapper=None, resume=False, **changes):
        distributed = torch.distributed.is_initialized()
        cfg = Config(dict(
            default_scope='mmpretrain', work_dir=str(tmp_path / work), model=model, resume=resume,
            launcher='pytorch' if distributed else 'none',
            experiment_name=f'{tmp_path.name}_{work}_{resume}',
            train_dataloader=dict(
                batch_size=12 // get_world_size(), num_workers=0,
                dataset=dict(type='Noise', classes=model is not CAE),
                sampler=dict(type='DefaultSampler', shuffle=False),
                collate_fn=dict(type='default_collate' if model is CAE else 'pseudo_collate')),
            train_cfg=dict(type='ResumableEpochLoop', max_epochs=steps),
            optim_wrapper=dict(type='AutocastOptimWrapper', constructor='LayerDecayOptimWrapperConstructor',
                               paramwise_cfg=dict(layer_decay_rate=0.75), clip_grad=dict(max_norm=0.5),
                               optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05)),
            default_hooks=dict(
                hangs=dict(type='HangHook', minutes=1), runtime_info=dict(type='TrainingMonitor'),
                batch_size=dict(type='BatchSizeHook'),
                strict_load=dict(type='StrictLoadHook'), signals=dict(type='SignalHook'),
                logger=None, checkpoint=dict(type='SafeCheckpointHook', interval=5, max_keep_ckpts=1)),
            custom_hooks=[dict(type='Collect')], randomness=dict(seed=0)))
        if wrapper:
            cfg.model_wrapper_cfg = wrapper
        cfg.merge_from_dict(changes)
        if distributed:
            launch.set_wrapper(cfg)
        runner = TrainingRunner.from_cfg(cfg)
        launch.compile_model(runner.model, cfg.get('compile_model'))
        runner.train()
        return torch.tensor(runner.found)

    return run


SHARDED = dict(type='mmpretrain.ShardedModel')


@pytest.mark.parametrize('model', [CAE, CLASSIFIER], ids=['pre-training', 'classifier'])
def test_losses_are_those_of_whole_models(train, on_ranks, tmp_path, model):
    def weights(work):
        return torch.load(tmp_path / work / 'epoch_20.pth', weights_only=True)['state_dict']

    whole = on_ranks(2, lambda: train('whole', model=model))
    sharded = on_ranks(2, lambda: train('sharded', model=model, wrapper=SHARDED))
    for one, other in zip(whole, sharded, strict=True):
        assert len(one) == 20 and one[0, 0] > one[-1, 0]
        torch.testing.assert_close(other, one, atol=1e-5, rtol=0)
    assert weights('sharded').keys() == weights('whole').keys()
    for name, value in weights('whole').items():
        assert type(weights('sharded')[name]) is torch.Tensor
        torch.testing.assert_close(weights('sharded')[name], value, atol=1e-4, rtol=0, msg=name)


def test_resumes_with_other_numbers_of_processes(train, on_ranks, tmp_path):
    """What two have written, one goes on with, whole, and three, sharing the model out between them."""
    changes = {'model.backbone.drop_path_rate': 0., 'optim_wrapper.optimizer.eps': 1e-4}

    def run(ranks, steps=8):
        results = on_ranks(ranks, lambda: train(
            str(ranks), steps, wrapper=SHARDED, resume=steps == 8, **changes))
        return torch.stack(results).mean(0)[:, 0]

    run(2, steps=5)
    for copy in (1, 3, 'plain'):
        shutil.copytree(tmp_path / '2', tmp_path / str(copy))
    expected = run(2)
    for found in (run(1), run(3), train('plain', 8, resume=True, **changes)[:, 0]):
        assert len(found) == 3
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize('options, tolerance', [
    (dict(gradient_as_bucket_view=False, static_graph=True), 0.), (dict(bf16_gradients=True), 1e-2)])
def test_options_of_whole_models(train, on_ranks, options, tolerance):
    plain = on_ranks(2, lambda: train('plain', 3))
    other = on_ranks(2, lambda: train('other', 3, wrapper=options))
    for one, two in zip(plain, other, strict=True):
        torch.testing.assert_close(two, one, atol=0, rtol=tolerance)
    assert torch.equal(torch.stack(plain), torch.stack(other)) == (not tolerance)


def test_what_cannot_be(monkeypatch):
    sharded = dict(model_wrapper_cfg=SHARDED, optim_wrapper=dict())
    with pytest.raises(ValueError, match='--fsdp shares the model out .*dist_train.sh'):
        launch.set_wrapper(Config(dict(sharded, launcher='none')))
    static = dict(launcher='pytorch', model_wrapper_cfg=dict(static_graph=True))
    with pytest.raises(ValueError, match='static_graph=True does not go with .*accumulative_counts'):
        launch.set_wrapper(Config(dict(static, optim_wrapper=dict(accumulative_counts=2))))


@pytest.mark.slow
@pytest.mark.parametrize('kind, sharded', [('killed', False), ('killed', True), ('hangs', False)])
def test_who_is_lost_is_replaced(train, on_ranks, tmp_path, monkeypatch, capfd, kind, sharded):
    """All start anew from the last checkpoint, and end as if nothing had been."""
    options = {'default_hooks.checkpoint.interval': 1, 'wrapper': SHARDED, 'resume': True, 'steps': 4,
               'default_hooks.checkpoint.sharded': sharded}

    def start():
        torch.set_num_threads(1)
        launch.start_processes(Config(dict(launcher='pytorch', model={})))
        train('lost', **options, custom_hooks=[dict(type='Collect'), dict(type='Accident', kind=kind)])

    on_ranks(2, lambda: train('whole', **options))
    monkeypatch.setattr(api, 'LocalElasticAgent', torchrun.Agent)
    api.elastic_launch(api.LaunchConfig(
        1, 1, 2, rdzv_backend='c10d', rdzv_endpoint='127.0.0.1:0', start_method='fork', max_restarts=1,
        run_id='test', local_addr='127.0.0.1'), start)()
    told = capfd.readouterr()
    assert 'all start anew, which they may do 1 times' in told.err
    hang = 'in iteration 3: rank 1 .* is in iteration 3, without its data'
    assert bool(re.search(hang, told.out + told.err)) == (kind == 'hangs')
    name = 'epoch_4.dcp' if sharded else 'epoch_4.pth'
    expected, found = (read_checkpoint(tmp_path / work / name)['state_dict'] for work in ('whole', 'lost'))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
