"""Every classification config trains, evaluates and resumes at toy size."""
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from PIL import Image
from timm.data.mixup import mixup_target
from timm.loss import SoftTargetCrossEntropy

from cae_mm.engine import launch
from cae_mm.models import CAEViT, TimmViT
from tests.toy import ARCH, OTHERS, is_small, shrink

CONFIGS = Path(__file__).parents[2] / 'configs' / 'cls'
NAMES = sorted(path.stem for path in CONFIGS.glob('*.py'))
# Millions of parameters of those that the metafile does not list.
SMALL = {'attentive_cae_vitt_demo': 1.284, 'finetune_cae_vitt_demo': 1.222,
         'finetune_cae_vitt_eurosat': 2.714, 'finetune_cae_vitt_flowers': 2.759,
         'attentive_cae_vitt_eurosat': 2.859, 'attentive_cae_vitt_flowers': 2.904}


@pytest.mark.parametrize('name', [name for name in NAMES if is_small(name)])
def test_size_of_small_models(name):
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(Config.fromfile(CONFIGS / f'{name}.py').model)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(SMALL[name], abs=0.001)


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """Two classes of four pictures for training and as many for validation."""
    root, rng = tmp_path_factory.mktemp('pictures'), np.random.default_rng(0)
    for i in range(16):
        folder = root / ('train', 'val')[i // 8] / ('cat', 'dog')[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (96, 128, 3), np.uint8)).save(folder / f'{i}.jpg')
    return root


@pytest.fixture
def toy(pictures, tmp_path, monkeypatch):
    """A function from the name of a config to its shrunken self, on the pictures."""
    monkeypatch.setattr(Config, 'pretty_text', '')  # logging it takes longer than the training

    def build(name, work='work', workers=0, **options):
        pretrained = tmp_path / 'pretrained.pth'
        options = {'num_classes': 2, 'val_evaluator.topk': 1, 'train_cfg.max_epochs': 1,
                   'param_scheduler.warmup_epochs': 0, 'experiment_name': f'{name}_{tmp_path}_{work}',
                   **{f'{key}.num_workers': workers for key in launch.LOADERS}, **options}
        cfg = launch.load_config(Namespace(
            config=str(CONFIGS / f'{name}.py'), cfg_options=options, data_root=str(pictures),
            pretrained=options.pop('pretrained', str(pretrained)), launcher='none',
            work_dir=str(tmp_path / work)))
        shrink(cfg)
        size, patch = (cfg.model.backbone.get(key) for key in ('img_size', 'patch_size'))
        for dataset in (cfg.train_dataloader.dataset.dataset, cfg.val_dataloader.dataset):
            dataset.serialize_data = False  # which collects garbage, and that takes long
        # Two steps of 8 pictures in all, whatever the accumulation.
        steps = 2 * min(cfg.optim_wrapper.get('accumulative_counts', 1), 2)
        cfg.optim_wrapper.accumulative_counts = steps // 2
        cfg.train_dataloader.batch_size = 8 // steps
        # What the config asks for is pre-trained without position bias.
        encoder = CAEViT(ARCH, size, patch or 16)
        torch.save({f'backbone.{key}': value for key, value in encoder.state_dict().items()}, pretrained)
        return cfg, encoder, steps
    return build


@pytest.mark.parametrize('name, amp', [*((name, None) for name in NAMES),
                                       *((f'{kind}_cae_vitb_{epochs}e', True) for kind, epochs in (
                                           ('finetune', 100), ('linear', 90), ('attentive', 90)))])
def test_two_steps_and_an_evaluation(name, amp, toy, tmp_path):
    cfg, encoder, steps = toy(name)
    cfg.optim_wrapper.amp = amp
    runner = Runner.from_cfg(cfg)
    runner.train()
    model, start = runner.model, encoder.state_dict()
    assert runner.iter == steps and (tmp_path / 'work' / 'epoch_1.pth').is_file()
    assert 0 <= runner.message_hub.get_scalar('val/accuracy/top1').current() <= 100
    moved = {key for key, value in model.backbone.state_dict().items()
             if not torch.equal(value, start.get(key, torch.zeros_like(value)))}
    optimised = sum(len(group['params']) for group in runner.optim_wrapper.optimizer.param_groups)
    if name.startswith('finetune'):
        # Everything but the fixed positions, the biases of positions from zero included.
        assert moved == {key for key, _ in model.backbone.named_parameters()}
        assert optimised == len(list(model.parameters()))
    else:
        model.train()
        assert not moved
        assert not any(m.training for m in model.backbone.modules() if not list(m.children()))
        size = cfg.model.backbone.img_size
        features = model.backbone(torch.randn(1, 3, size, size))
        assert not features[0].requires_grad
        assert optimised == len(list(model.head.parameters()))


@pytest.mark.parametrize('name', [
    'finetune_cae_vitb_100e', 'linear_cae_vitb_90e', 'attentive_cae_vitb_90e'])
@pytest.mark.parametrize('other', OTHERS)
def test_another_encoder(name, other, toy):
    cfg, _, steps = toy(name, backbone=f'timm:{other}', pretrained='none')
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == steps and isinstance(runner.model.backbone, TimmViT)
    assert 0 <= runner.message_hub.get_scalar('val/accuracy/top1').current() <= 100
    trained = [p for p in runner.model.parameters() if p.requires_grad]
    assert len(runner.optim_wrapper.optimizer.state) == len(trained)  # all had gradients
    assert any(p.requires_grad for p in runner.model.backbone.parameters()) == name.startswith('finetune')


def test_pictures_and_averaged_weights(toy, pictures, tmp_path):
    """By settings of the command line; best is what the averaged weights score."""
    hooks = {'pictures.type': 'PicturesHook', 'pictures.images': str(pictures), 'pictures.num': 2,
             'ema.type': 'EMAHook', 'checkpoint.save_best': 'auto'}
    cfg = toy('finetune_cae_vitb_100e', shots=3, **{
        f'default_hooks.{key}': value for key, value in hooks.items()})[0]
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert len(runner.train_dataloader.dataset) == 6
    work = tmp_path / 'work'
    assert [path.name for path in work.glob('*/vis_data/vis_image/*')] == ['attention_1.png']
    [best] = work.glob('best_accuracy_top1_epoch_1.pth')
    averaged, now = torch.load(best)['state_dict'], runner.model.state_dict()
    assert averaged.keys() == now.keys() and not torch.equal(averaged['head.fc.bias'], now['head.fc.bias'])


def test_resumed_in_mid_epoch(toy, tmp_path):
    """With mixup, random erasing, drop path and accumulated gradients, and by workers: the same weights."""
    options = {'default_hooks.checkpoint.by_epoch': False, 'default_hooks.checkpoint.interval': 2}
    straight = Runner.from_cfg(toy('finetune_cae_vitb_100e', **options)[0])
    straight.train()
    cfg = toy('finetune_cae_vitb_100e', 'resumed', workers=2, **options)[0]
    cfg.update(resume=True, load_from=str(tmp_path / 'work' / 'iter_2.pth'))
    resumed = Runner.from_cfg(cfg)
    resumed.train()
    other = resumed.model.state_dict()
    assert resumed.train_dataloader.persistent_workers and resumed.val_dataloader.persistent_workers
    assert all(torch.equal(value, other[key]) for key, value in straight.model.state_dict().items())


def test_mixed_targets_are_smoothed_as_by_timm():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        loss = MODELS.build(Config.fromfile(CONFIGS / 'finetune_cae_vitb_100e.py').model.head.loss)
    logits, labels = torch.randn(8, 10), torch.arange(8)
    one_hot = torch.nn.functional.one_hot(labels, 10)
    mixed = 0.3 * one_hot + 0.7 * one_hot.flip(0)
    expected = SoftTargetCrossEntropy()(logits, mixup_target(labels, 10, lam=0.3, smoothing=0.1))
    torch.testing.assert_close(loss(logits, mixed, avg_factor=8), expected)


def test_wrong_number_of_classes(toy):
    with pytest.raises(ValueError, match='the head has 1000 classes, .*train 2: .*num_classes=2'):
        Runner.from_cfg(toy('linear_cae_vits_90e', num_classes=1000)[0]).train()
