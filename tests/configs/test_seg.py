"""Every segmentation config builds at full size, trains, evaluates and resumes at toy size."""
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from torch import nn

from cae_mm.engine import launch
from cae_mm.models import CAEViT, TimmViT
from demo import make_demo_data as demo
from tests.toy import ARCH, OTHERS, shrink

CONFIGS = Path(__file__).parents[2] / 'configs' / 'seg'
NAMES = sorted(path.stem for path in CONFIGS.glob('*ade20k*.py'))
METAFILE = yaml.safe_load((CONFIGS / 'metafile.yml').read_text())
FACTS = {entry['Name']: entry['Metadata'] for entry in METAFILE['Models']}


def read(name):
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    init_default_scope(cfg.default_scope)
    return cfg


def full_size(cfg):
    with torch.device('meta'):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize('name', NAMES)
def test_full_size_on_the_meta_device(name):
    cfg, facts = read(name), FACTS[name.removesuffix('_ms')]
    model = full_size(cfg)
    assert sum(p.numel() for p in model.parameters()) == facts['Parameters']
    assert cfg.train_cfg.max_iters == facts['Iterations']
    assert 8 * cfg.train_dataloader.batch_size == facts['Batch Size']
    trained = {key.split('.')[0] for key, p in model.named_parameters() if p.requires_grad}
    assert trained == ({'decode_head'} if name.startswith('linear') else {'module'} if name.endswith('_ms')
                       else {'backbone', 'neck', 'decode_head', 'auxiliary_head'})


@pytest.mark.parametrize('name, layers, rate, decay', [
    ('upernet_cae_vitb_160k_ade20k', 12, 2e-4, 0.65), ('upernet_cae_vitl_160k_ade20k', 24, 4e-5, 0.95)])
def test_learning_rates_fall_with_depth(name, layers, rate, decay):
    cfg = read(name)
    groups = build_optim_wrapper(full_size(cfg), cfg.optim_wrapper).optimizer.param_groups
    found = {key: (group['lr'] / rate, group['weight_decay'])
             for group in groups for key in group['param_names']}
    first = decay ** (layers + 1)
    expected = {
        'backbone.cls_token': (first, 0.05), 'backbone.patch_embed.bias': (first, 0),
        'backbone.blocks.0.attn.qkv.weight': (first / decay, 0.05),
        f'backbone.blocks.{layers - 1}.gamma_1': (decay, 0),
        'backbone.blocks.3.attn.rel_pos.relative_position_bias_table': (first / decay**4, 0.05),
        'neck.upsample4.0.weight': (1, 0.05), 'neck.upsample4.1.weight': (1, 0),
        'decode_head.conv_seg.weight': (1, 0.05), 'auxiliary_head.conv_seg.bias': (1, 0)}
    assert {key: found[key] for key in expected} == {
        key: pytest.approx(value) for key, value in expected.items()}


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """The demo's data in ADE20K's layout: 6 pictures for training and 12, with all classes, for testing."""
    root, rng = tmp_path_factory.mktemp('ade'), np.random.default_rng(0)
    scans, photographs = demo.load_scans(0.2), [np.full((128, 128, 3), 90, np.uint8)]
    for split, number in (('train', 6), ('val', 12)):
        scenes = [demo.make_scene(*scans[split], photographs, rng) for _ in range(number)]
        demo.write_ade(root, split, scenes)
    return root


@pytest.fixture
def toy(pictures, tmp_path, monkeypatch):
    """A function from the name of a config to its shrunken self, on the pictures, with windows of 64."""
    monkeypatch.setattr(Config, 'pretty_text', '')  # logging it takes longer than the training

    def build(name, work='work', workers=0, **options):
        pretrained = tmp_path / 'pretrained.pth'
        cfg = launch.load_config(Namespace(
            config=str(CONFIGS / f'{name}.py'), data_root=str(pictures), launcher='none',
            pretrained=options.pop('pretrained', str(pretrained)), work_dir=str(tmp_path / work),
            cfg_options={
                'classes': str(pictures / 'classes.txt'), 'crop_size': [64, 64], 'test_scale': [256, 64],
                **{f'{key}.num_workers': workers for key in launch.LOADERS},
                'default_hooks.logger.interval': 1, 'train_cfg.max_iters': 2,
                'param_scheduler.0.start_factor': 1., 'param_scheduler.0.end': 2,
                'experiment_name': f'{name}_{tmp_path}_{work}', **options}))
        shrink(cfg)
        encoder = CAEViT(ARCH, 32)
        torch.save({f'backbone.{key}': value for key, value in encoder.state_dict().items()}, pretrained)
        return cfg, encoder
    return build


@pytest.mark.parametrize('name, amp', [(name, None) for name in FACTS] + [(min(FACTS), True), (
    'upernet_cae_vits_160k_ade20k', True)])
def test_two_steps_and_an_evaluation(name, amp, toy, tmp_path):
    cfg, encoder = toy(name, workers=1 if amp else 0, **{'optim_wrapper.amp': amp})
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2 and (tmp_path / 'work' / 'iter_2.pth').is_file()
    assert 0 <= runner.message_hub.get_scalar('val/mIoU').current() <= 100
    start, frozen = encoder.state_dict(), name.startswith('linear')
    moved = {key for key, value in runner.model.backbone.state_dict().items()
             if not torch.equal(value, start.get(key, torch.zeros_like(value)))
             and key != 'pos_embed'}  # recomputed for the larger grid
    assert moved == (set() if frozen else {key for key, _ in runner.model.backbone.named_parameters()})
    # All had gradients: distributed training needs no find_unused_parameters.
    trained = [p for p in runner.model.parameters() if p.requires_grad]
    assert len(runner.optim_wrapper.optimizer.state) == len(trained)


@pytest.mark.parametrize('name', ['upernet_cae_vitb_160k_ade20k', 'linear_cae_vitb_40k_ade20k'])
@pytest.mark.parametrize('other', OTHERS)
def test_another_encoder(name, other, toy):
    runner = Runner.from_cfg(toy(name, backbone=f'timm:{other}', pretrained='none')[0])
    runner.train()
    assert runner.iter == 2 and isinstance(runner.model.backbone, TimmViT)
    assert 0 <= runner.message_hub.get_scalar('val/mIoU').current() <= 100
    trained = [p for p in runner.model.parameters() if p.requires_grad]
    assert len(runner.optim_wrapper.optimizer.state) == len(trained)  # all had gradients


def test_resumed(toy, tmp_path):
    """With drop path, dropout, random crops and workers, over the end of an epoch: the same weights."""
    options = {'train_cfg.max_iters': 5, 'default_hooks.checkpoint.interval': 2, 'val_evaluator': None,
               'val_dataloader': None, 'val_cfg': None}
    straight = Runner.from_cfg(toy('upernet_cae_vits_160k_ade20k', **options)[0])
    straight.train()
    cfg = toy('upernet_cae_vits_160k_ade20k', 'resumed', workers=2, **options)[0]
    cfg.update(resume=True, load_from=str(tmp_path / 'work' / 'iter_4.pth'))
    resumed = Runner.from_cfg(cfg)
    resumed.train()
    other = resumed.model.state_dict()
    assert resumed.iter == 5 and resumed.train_dataloader.persistent_workers
    assert all(torch.equal(value, other[key]) for key, value in straight.model.state_dict().items())


def test_multi_scale_test_of_the_same_checkpoint(toy, tmp_path):
    Runner.from_cfg(toy('upernet_cae_vitb_160k_ade20k')[0]).train()
    cfg = toy('upernet_cae_vitb_160k_ade20k_ms', 'ms', load_from=str(tmp_path / 'work/iter_2.pth'),
              **{'test_dataloader.dataset.indices': 3})[0]
    assert 0 <= Runner.from_cfg(cfg).test()['mIoU'] <= 100
    checkpoint = torch.load(tmp_path / 'work/iter_2.pth')
    del checkpoint['state_dict']['decode_head.conv_seg.bias']
    del checkpoint['meta']['checksums']
    torch.save(checkpoint, cfg.load_from)
    cfg.experiment_name += '_less'
    with pytest.raises(RuntimeError, match='iter_2.pth is of .* 1 missing: decode_head.conv_seg.bias'):
        Runner.from_cfg(cfg).test()


def official_rate(step, warmup=1500, total=160000):
    """mmcv's linear warm-up, relative to the rate that the decay would give."""
    ramp = 1 - (1 - step / warmup) * (1 - 1e-6) if step < warmup else 1
    return ramp * (1 - step / total)


def test_schedule():
    optimizer, rates = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.), []
    schedulers = [PARAM_SCHEDULERS.build(dict(scheduler, optimizer=optimizer, **more))
                  for scheduler, more in zip(read('upernet_cae_vitb_160k_ade20k').param_scheduler,
                                             ({}, dict(end=160000)), strict=True)]
    for _ in range(80001):
        rates.append(optimizer.param_groups[0]['lr'])
        for scheduler in schedulers:
            scheduler.step()
    steps = (0, 1, 750, 1499, 1500, 80000)
    assert [rates[step] for step in steps] == pytest.approx([*map(official_rate, steps)], rel=1e-5)


class Oracle(BaseModel):
    """Predicts the truth of each picture after ``change``."""

    def __init__(self, change):
        super().__init__()
        self.change, self.weight = change, nn.Parameter(torch.zeros(1))

    def forward(self, inputs, data_samples=None, mode='predict'):
        for sample in data_samples:
            truth = sample.gt_sem_seg.data
            assert truth.shape[-2:] == sample.ori_shape
            sample.pred_sem_seg = PixelData(data=self.change(truth.long()))
        return data_samples


def labels(root, split):
    """What the label maps hold."""
    maps = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            for path in (root / 'annotations' / split).glob('*.png')]
    return set(np.unique(maps).tolist())


@pytest.mark.parametrize('what, low, high', [
    ('truth', 100, 100), ('one class for another', 1, 95), ('void counted as a class', 0, 5)])
def test_the_truth_as_prediction(what, low, high, toy, pictures):
    """With anything where the truth is void; classes are numbered from 1 in the files, here from 0."""
    change = {'truth': lambda truth: torch.where(truth == 255, 7, truth),
              'one class for another': lambda truth: torch.where(truth == 3, 4, truth),
              'void counted as a class': lambda truth: (truth + 1) % 11}[what]
    cfg = toy('upernet_cae_vitb_160k_ade20k')[0]
    init_default_scope('mmseg')
    runner = Runner(Oracle(change), cfg.work_dir, val_dataloader=cfg.val_dataloader, val_cfg={},
                    val_evaluator=cfg.val_evaluator, default_scope='mmseg',
                    experiment_name=f'{cfg.work_dir} {what}')
    assert low <= runner.val()['mIoU'] <= high
    assert labels(pictures, 'validation') == set(range(12))


def test_labels_of_training(toy, pictures):
    cfg = toy('upernet_cae_vitb_160k_ade20k')[0]
    init_default_scope('mmseg')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert dataset.metainfo['classes'] == ['background', *map(str, range(10))]
    seen = torch.cat([dataset[i]['data_samples'].gt_sem_seg.data.unique() for i in range(24)])
    expected = {255 if label == 0 else label - 1 for label in labels(pictures, 'training')}
    assert set(seen.tolist()) == expected and len(expected) > 5


@pytest.mark.parametrize('height, width', [(20, 200), (200, 20), (30, 30), (130, 50)])
def test_small_and_elongated_pictures(height, width, toy, tmp_path):
    """The windows have one size only: pictures with a shorter side are filled up, and cut afterwards."""
    cfg = toy('upernet_cae_vitb_160k_ade20k')[0]
    init_default_scope('mmseg')
    model = MODELS.build(cfg.model).eval()
    model.backbone.init_weights()
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    scale = min(256 / max(height, width), 64 / min(height, width))
    inside = cv2.resize(picture, (int(width * scale + 0.5), int(height * scale + 0.5)))
    cv2.imwrite(str(tmp_path / 'picture.png'), picture)
    pipeline = [step for step in cfg.test_dataloader.dataset.pipeline if step.type != 'LoadAnnotations']
    data = Compose(pipeline)(dict(img_path=str(tmp_path / 'picture.png')))
    assert data['inputs'].shape[1:] == inside.shape[:2]
    batch = dict(inputs=[data['inputs']], data_samples=[data['data_samples']])
    with torch.no_grad():
        [result] = model.test_step(batch)
        assert result.pred_sem_seg.shape == result.seg_logits.shape == (height, width)
        if min(inside.shape[:2]) < 64:
            model.data_preprocessor.test_cfg = None
            with pytest.raises(ValueError, match='relative position bias is for 64x64 pixels'):
                model.test_step(batch)


def test_windows_of_another_size(toy):
    """One option reaches the crop, the padding, the positions, and the windows and their overlap."""
    cfg = toy('upernet_cae_vitb_160k_ade20k')[0]
    model = cfg.model
    found = (cfg.train_dataloader.dataset.dataset.pipeline[3].crop_size, model.data_preprocessor.size,
             model.data_preprocessor.test_cfg.size, model.backbone.img_size, model.test_cfg.crop_size)
    assert found == ((64, 64),) * 5 and model.test_cfg.stride == (42, 42)


def test_windows_that_are_no_multiple_of_the_patch(toy):
    with pytest.raises(ValueError, match='100x100 pixels has no whole number of patches of 16.*112x112'):
        Runner.from_cfg(toy('upernet_cae_vitb_160k_ade20k', crop_size=[100, 100])[0])


def test_the_small_model_of_street_scenes(pictures, tmp_path, monkeypatch):
    """Whole, but for its length, on pictures that have as many classes; from scratch, then resumed."""
    monkeypatch.setattr(Config, 'pretty_text', '')
    options = {f'{key}.num_workers': 0 for key in ('train_dataloader', 'val_dataloader', 'test_dataloader')}
    options |= {'train_dataloader.batch_size': 2, 'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2,
                'default_hooks.checkpoint.interval': 1, 'val_dataloader.dataset.indices': 2,
                'param_scheduler.0.end': 3}

    def run(**more):
        cfg = launch.load_config(Namespace(
            config=str(CONFIGS / 'upernet_cae_vitt_camvid.py'), data_root=str(pictures), pretrained='none',
            launcher='none', work_dir=str(tmp_path / 'work'),
            cfg_options=options | {'experiment_name': f'{tmp_path} {len(more)}', **more}))
        runner = Runner.from_cfg(cfg)
        runner.train()
        return runner

    runner = run()
    assert (runner.iter, sum(p.numel() for p in runner.model.parameters())) == (2, 3_739_678)
    assert 0 <= runner.message_hub.get_scalar('val/mIoU').current() <= 100
    assert run(resume=True, **{'train_cfg.max_iters': 3}).iter == 3
