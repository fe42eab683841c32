"""Averaged weights by mmengine's EMAHook, and the best checkpoint of a training."""
from functools import partial

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import EMAHook
from mmengine.structures import BaseDataElement
from mmpretrain.registry import METRICS, MODELS
from PIL import Image

from cae_mm.checkpoint.files import read_checkpoint, read_weights
from cae_mm.checkpoint.loader import load_backbone
from cae_mm.models import CAEViT

ARCH = dict(embed_dims=24, num_layers=2, num_heads=2)
SIZES = dict(grid_size=4, embed_dims=24, num_heads=2, depth=1)
CAE = dict(
    type='ContextAutoencoder', backbone=dict(type='CAEViT', arch=ARCH, img_size=16, patch_size=4),
    neck=dict(type='LatentContextualRegressor', **SIZES),
    head=dict(type='CAEDecoder', num_outputs=8, **SIZES),
    # A tokenizer, which no checkpoint holds.
    target_generator=dict(type='DiscreteVAE', num_codes=8, hidden_dims=8, code_dims=8, num_groups=3,
                          allow_random=True))
MASKED = dict(type='ImageFolder', with_label=False, pipeline=[
    dict(type='LoadRGBImage'), dict(type='TwoViewCrop', size=16, target_size=16),
    dict(type='RandomMask', grid=4, num_masked=8), dict(type='PackViews')])
EMA = {'default_hooks.ema.type': 'EMAHook', 'default_hooks.ema.momentum': 0.3,
       'default_hooks.strict_load.type': 'StrictLoadHook'}


@METRICS.register_module()
class Scripted(BaseMetric):
    """Scores that a test gives."""
    scores = iter(())

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(score=next(self.scores))


def weights(runner):
    """The trained weights and the averaged ones."""
    [hook] = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    return (runner.model.state_dict(), hook.ema_model.module.state_dict())


def equal(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[key], other[key]) for key in state)


def pretrain(toy_runner, folder, **changes):
    data = dict(MASKED, data_root=str(folder))
    runner = partial(toy_runner, model=CAE, **{'train_dataloader.dataset': dict(
        type='ReproducibleDataset', dataset=data, _delete_=True),
        'train_dataloader.sampler': dict(type='EpochSampler', _delete_=True), **EMA}, **changes)()
    runner.train()
    return runner


def test_pretraining_with_averaged_weights(toy_runner, tmp_path):
    folder, rng = tmp_path / 'pictures', np.random.default_rng(0)
    folder.mkdir()
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(folder / f'{i}.png')
    straight = pretrain(toy_runner, folder)
    trained, averaged = weights(straight)
    work = tmp_path / 'work'
    state, _ = read_weights(work / 'epoch_2.pth')
    # What the converter, --pretrained and the tests read are the averaged weights; the others are beside.
    assert equal(dict(state), averaged) and not equal(trained, averaged)
    beside = read_checkpoint(work / 'epoch_2.pth')['ema_state_dict']
    del beside['steps']
    assert equal({key.removeprefix('module.'): value for key, value in beside.items()}, trained)
    encoder = CAEViT(ARCH, 16, 4)
    load_backbone(encoder, work / 'epoch_2.pth')
    assert torch.equal(encoder.norm.weight, averaged['backbone.norm.weight'])
    (work / 'epoch_2.pth').unlink()
    resumed = pretrain(toy_runner, folder, resume=True, load_from=str(work / 'epoch_1.pth'))
    assert resumed.iter == 6
    assert all(map(equal, weights(resumed), weights(straight)))


@pytest.mark.parametrize('averaging', [{}, EMA])
def test_the_best_is_kept(averaging, toy_runner, tmp_path, monkeypatch):
    monkeypatch.setattr(Scripted, 'scores', iter([1, 3, 2, 4]))
    loader = dict(batch_size=4, num_workers=0, dataset=dict(type='Points'), collate_fn=dict(
        type='default_collate'), sampler=dict(type='DefaultSampler'))
    monkeypatch.setattr(MODELS.get('Line'), 'val_step', lambda self, data: [BaseDataElement()])
    run = partial(toy_runner, val_dataloader=loader, val_cfg={}, val_evaluator=dict(type='Scripted'), **{
        'default_hooks.checkpoint.save_best': 'score', 'default_hooks.checkpoint.rule': 'greater',
        'default_hooks.checkpoint.max_keep_ckpts': 1}, **averaging)
    first, work = run(**{'train_cfg.max_epochs': 2}), tmp_path / 'work'
    first.train()
    [best] = work.glob('best_*')
    assert best.name == 'best_score_epoch_2.pth'
    saved = dict(read_weights(best)[0])
    assert equal(saved, (weights(first)[1] if averaging else first.model.state_dict()))
    # The third is worse than the best of the run that it continues, the fourth is better.
    run(resume=True, **{'train_cfg.max_epochs': 3}).train()
    assert [path.name for path in work.glob('best_*')] == ['best_score_epoch_2.pth']
    assert sorted(path.name for path in work.glob('epoch_*')) == ['epoch_3.pth']
    run(resume=True, **{'train_cfg.max_epochs': 4}).train()
    assert [path.name for path in work.glob('best_*')] == ['best_score_epoch_4.pth']
