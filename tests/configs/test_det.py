"""Every detection config builds at full size, trains, evaluates and resumes at toy size."""
import json
from argparse import Namespace
from pathlib import Path

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
from mmengine.structures import InstanceData
from torch import nn

from cae_mm.engine import launch
from cae_mm.models import CAEViT, TimmViT
from demo import make_demo_data as demo
from tests.toy import ARCH, OTHERS, shrink

CONFIGS = Path(__file__).parents[2] / 'configs' / 'det'
NAMES = sorted(path.stem for path in CONFIGS.glob('*_coco.py'))
METAFILE = yaml.safe_load((CONFIGS / 'metafile.yml').read_text())
ENTRIES = {entry['Name']: entry for entry in METAFILE['Models']}
# Ids with gaps, as those of COCO.
CATEGORY_IDS = [1, 2, 3, 5, 8, 13, 21, 34, 55, 90]


def read(name):
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    init_default_scope(cfg.default_scope)
    return cfg


def full_size(cfg):
    with torch.device('meta'):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize('name', NAMES)
def test_full_size_on_the_meta_device(name):
    cfg, facts = read(name), ENTRIES[name]['Metadata']
    model = full_size(cfg)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == facts['Parameters']
    assert cfg.train_cfg.max_epochs == facts['Epochs']
    assert 8 * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == facts['Batch Size']
    taps = {12: [3, 5, 7, 11], 24: [7, 11, 15, 23]}
    assert model.backbone.out_indices == ([11] if 'sfp' in name else taps[model.backbone.num_layers])
    assert model.backbone.with_cp == ('frozen' not in name) and isinstance(model.backbone.norm, nn.Identity)
    assert not cfg.env_cfg.cudnn_benchmark  # as mmdet: images of many sizes


@pytest.mark.parametrize('name', [
    name for name in NAMES if 'cascade' not in name and ENTRIES[name]['Results'][0]['Metrics']])
def test_results_are_those_of_the_pretraining_that_the_config_names(name):
    default = Path(read(name).pretrained).parent.name
    for result, metric in zip(ENTRIES[name]['Results'], ('box AP', 'mask AP'), strict=True):
        assert result['Metrics'][metric] == result['Metrics'][f'{metric} ({default})']


@pytest.mark.parametrize('name, layers, rate, decay', [
    ('mask_rcnn_cae_vitb_1x_coco', 12, 3e-4, 0.75), ('mask_rcnn_cae_vitl_1x_coco', 24, 2e-4, 0.85)])
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
        'neck.0.upsample4.0.weight': (1, 0.05), 'neck.1.fpn_convs.0.conv.bias': (1, 0),
        'rpn_head.rpn_conv.weight': (1, 0.05), 'roi_head.bbox_head.shared_convs.0.bn.weight': (1, 0),
        'roi_head.mask_head.upsample.weight': (1, 0.05)}
    assert {key: found[key] for key in expected} == {
        key: pytest.approx(value) for key, value in expected.items()}
    assert len(groups) == 2 * (layers + 2)


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """The demo's scenes in COCO's layout, some of which lie, with a crowd, and one without annotation."""
    root, rng = tmp_path_factory.mktemp('coco'), np.random.default_rng(0)
    scans, photographs = demo.load_scans(0.2), [np.full((128, 128, 3), 90, np.uint8)]
    for split, number in (('train', 9), ('val', 8)):
        scenes = [demo.make_scene(*scans[split], photographs, rng) for _ in range(number)]
        scenes[:4] = [(image[:90], [(label, digit[:90]) for label, digit in digits])
                      for image, digits in scenes[:4]]
        demo.write_coco(root, split, [*scenes[:-1], (scenes[-1][0], [])])
        path = root / 'annotations' / f'instances_{split}2017.json'
        content = json.loads(path.read_text())
        for part, key in (('categories', 'id'), ('annotations', 'category_id')):
            for entry in content[part]:
                entry[key] = CATEGORY_IDS[entry[key] - 1]
        crowd = content['annotations'][0]
        crowd.update(iscrowd=1, segmentation=dict(size=[90, 128], counts=[90 * 20, 90 * 30, 90 * 78]),
                     bbox=[20, 0, 30, 90], area=90 * 30)
        path.write_text(json.dumps(content))
    return root


@pytest.fixture
def toy(pictures, tmp_path, monkeypatch):
    """A function from the name of a config to its shrunken self, on the pictures."""
    monkeypatch.setattr(Config, 'pretty_text', '')  # logging it takes longer than the training

    def build(name, work='work', workers=0, **options):
        pretrained = tmp_path / 'pretrained.pth'
        cfg = launch.load_config(Namespace(
            config=str(CONFIGS / f'{name}.py'), data_root=str(pictures), launcher='none',
            pretrained=options.pop('pretrained', str(pretrained)), work_dir=str(tmp_path / work),
            cfg_options={
                'classes': demo.CLASSES, 'train_scales': [(96, 64), (128, 80)], 'crop_scales': [(128, 90)],
                'crop_size': (50, 80), 'test_scale': (96, 64), 'train_cfg.max_epochs': 1,
                **{f'{key}.num_workers': workers for key in launch.LOADERS},
                'default_hooks.logger.interval': 1, 'param_scheduler.0.start_factor': 1.,
                'experiment_name': f'{name}_{tmp_path}_{work}', **options}))
        shrink(cfg)
        encoder = CAEViT(ARCH, 32)
        torch.save({f'backbone.{key}': value for key, value in encoder.state_dict().items()}, pretrained)
        return cfg, encoder
    return build


@pytest.mark.parametrize('name, amp', [*((name, None) for name in NAMES),
                                       *((name, True) for name in NAMES if 'vitb_1x' in name)])
def test_two_steps_and_an_evaluation(name, amp, toy, tmp_path):
    cfg, encoder = toy(name, workers=1 if amp else 0)
    cfg.optim_wrapper.amp = amp
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2 and (tmp_path / 'work' / 'epoch_1.pth').is_file()
    for kind in ('bbox', 'segm'):
        assert 0 <= runner.message_hub.get_scalar(f'val/coco/{kind}_mAP').current() <= 1
    start = encoder.state_dict()
    moved = {key for key, value in runner.model.backbone.state_dict().items()
             if key != 'pos_embed' and not torch.equal(value, start[key])}
    assert moved == {key for key, value in runner.model.backbone.named_parameters() if value.requires_grad}
    assert bool(moved) == ('frozen' not in name)
    # All had gradients: distributed training needs no find_unused_parameters.
    trained = [value for value in runner.model.parameters() if value.requires_grad]
    assert len(runner.optim_wrapper.optimizer.state) == len(trained)
    assert all(value.dtype == torch.float32 for value in runner.model.parameters())


@pytest.mark.parametrize('name, other', [
    *(('mask_rcnn_cae_vitb_1x_coco', other) for other in OTHERS),
    ('mask_rcnn_cae_vitb_sfp_1x_coco', OTHERS[0]), ('mask_rcnn_cae_vitb_frozen_1x_coco', OTHERS[0])])
def test_another_encoder(name, other, toy):
    runner = Runner.from_cfg(toy(name, backbone=f'timm:{other}', pretrained='none')[0])
    runner.train()
    assert runner.iter == 2 and isinstance(runner.model.backbone, TimmViT)
    for kind in ('bbox', 'segm'):
        assert 0 <= runner.message_hub.get_scalar(f'val/coco/{kind}_mAP').current() <= 1
    trained = [p for p in runner.model.parameters() if p.requires_grad]
    assert len(runner.optim_wrapper.optimizer.state) == len(trained)  # all had gradients


def test_resumed_in_mid_epoch(toy, tmp_path):
    """With drop path, sampled boxes, random sizes and crops, and by workers: the same weights."""
    options = {'train_cfg.max_epochs': 2, 'default_hooks.checkpoint.by_epoch': False, 'val_evaluator': None,
               'val_dataloader': None, 'val_cfg': None}
    straight = Runner.from_cfg(toy('mask_rcnn_cae_vits_1x_coco', **options)[0])
    straight.train()
    cfg = toy('mask_rcnn_cae_vits_1x_coco', 'resumed', workers=2, **options)[0]
    cfg.update(resume=True, load_from=str(tmp_path / 'work' / 'iter_3.pth'))
    resumed = Runner.from_cfg(cfg)
    resumed.train()
    other = resumed.model.state_dict()
    assert resumed.iter == 4 and resumed.train_dataloader.persistent_workers
    assert all(torch.equal(value, other[key]) for key, value in straight.model.state_dict().items())


def test_pictures_of_the_validation(toy, tmp_path):
    options = dict(draw=True, interval=1, score_thr=0.)
    cfg = toy('mask_rcnn_cae_vits_1x_coco', **{
        f'default_hooks.visualization.{key}': value for key, value in options.items()})[0]
    Runner.from_cfg(cfg).train()
    assert len([*(tmp_path / 'work').glob('*/vis_data/vis_image/val_img_*.png')]) == 8


def test_schedule():
    """mmcv's linear warm-up over 500 iterations, a tenth from epochs 9 and 11; epochs of 100 here."""
    optimizer, rates = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.), {}
    warmup, steps = [PARAM_SCHEDULERS.build(dict(scheduler, optimizer=optimizer))
                     for scheduler in read('mask_rcnn_cae_vitb_1x_coco').param_scheduler]
    for epoch in range(12):
        for iteration in range(100 * epoch, 100 * epoch + 100):
            rates[iteration] = optimizer.param_groups[0]['lr']
            warmup.step()
        steps.step()
    expected = {step: 1 - (1 - step / 500) * (1 - 0.001) for step in (0, 1, 250, 499)}
    expected |= {500: 1, 899: 1, 900: 0.1, 1099: 0.1, 1100: 0.01, 1199: 0.01}
    assert {step: rates[step] for step in expected} == pytest.approx(expected)


@pytest.fixture
def annotated():
    """A function that gives a picture of a size, with a box and its outline over its middle half."""
    def make(height, width):
        x, y, x2, y2 = width / 4, height / 4, width * 3 / 4, height * 3 / 4
        outline = [x, y, x2, y, x2, y2, x, y2]
        return dict(img=np.full((height, width, 3), [10, 20, 30], np.uint8), img_shape=(height, width),
                    height=height, width=width, ori_shape=(height, width), img_id=0, img_path='x.jpg',
                    instances=[dict(bbox=[x, y, x2, y2], bbox_label=7, ignore_flag=0, mask=[outline])])
    return make


def test_sizes_of_training(annotated):
    cfg = read('mask_rcnn_cae_vitb_1x_coco')
    load, flip, choice, pack = Compose(cfg.train_dataloader.dataset.dataset.pipeline[1:]).transforms
    (resize,), (shrink, crop, resize_crop) = choice.transforms
    assert choice.prob is None and flip.prob == 0.5  # each as often
    np.random.seed(0)
    seen = {step: set() for step in (resize, shrink, crop, resize_crop)}
    for _ in range(60):
        for policy in choice.transforms:
            results = load(annotated(480, 640))
            for step in policy:
                results = step(results)
                seen[step].add(results['img_shape'])
                assert results['gt_masks'].masks.shape[1:] == results['img_shape']
    short = set(range(480, 801, 32))
    assert seen[resize] == {(side, round(side * 4 / 3)) for side in short}
    assert seen[shrink] == {(400, 533), (500, 667), (600, 800)}
    sides = {side for size in seen[crop] for side in size}
    assert min(sides) >= 384 and max(sides) <= 600 and len(sides) > 50
    assert all(min(size) in short or max(size) == 1333 for size in seen[resize_crop])


@pytest.mark.parametrize('height, width, resized', [
    (480, 640, (800, 1067)), (640, 480, (1067, 800)), (300, 1000, (400, 1333))])
def test_sizes_of_testing(height, width, resized, annotated):
    cfg = read('mask_rcnn_cae_vitb_1x_coco')
    sample = Compose(cfg.test_dataloader.dataset.pipeline[1:])(annotated(height, width))
    assert sample['inputs'].shape[1:] == resized
    [box] = sample['data_samples'].gt_instances.bboxes.tensor.tolist()
    assert box == [width / 4, height / 4, width * 3 / 4, height * 3 / 4]  # that of the file
    batch = {key: [value] for key, value in sample.items()}
    [image] = MODELS.build(cfg.model.data_preprocessor)(batch)['inputs']
    assert [side % 32 for side in image.shape[1:]] == [0, 0]
    rgb = image[:, 0, 0] * torch.tensor([58.395, 57.12, 57.375]) + torch.tensor([123.675, 116.28, 103.53])
    assert rgb.tolist() == pytest.approx([30, 20, 10], abs=1e-3)  # the picture is BGR
    assert not image[:, resized[0]:].any() and not image[:, :, resized[1]:].any()


class Oracle(BaseModel):
    """Predicts the truth of each picture, but for the parts that ``change`` gives."""

    def __init__(self, change):
        super().__init__()
        self.change, self.weight = change, nn.Parameter(torch.zeros(1))

    def forward(self, inputs, data_samples=None, mode='predict'):
        for sample in data_samples:
            truth = sample.gt_instances
            truth = InstanceData(bboxes=truth.bboxes.tensor, labels=truth.labels,
                                 scores=torch.ones(len(truth)),
                                 masks=truth.masks.to_tensor(torch.bool, 'cpu'))
            sample.pred_instances = InstanceData(**{**dict(truth.items()), **self.change(truth)})
        return data_samples


WRONG = {
    'nothing': lambda truth: {},
    'class': lambda truth: dict(labels=(truth.labels + 1) % 10),
    'box': lambda truth: dict(bboxes=truth.bboxes + 30),
    'mask': lambda truth: dict(masks=truth.masks.roll(30, dims=2)),
}


@pytest.mark.parametrize('wrong, bbox, segm', [
    ('nothing', 1, 1), ('class', 0, 0), ('box', 0, 1), ('mask', 1, 0)])
def test_the_truth_as_prediction(wrong, bbox, segm, toy):
    """From the file through data set and pipeline to the metric, whose categories are the file's."""
    cfg = toy('mask_rcnn_cae_vitb_1x_coco')[0]
    init_default_scope('mmdet')
    runner = Runner(Oracle(WRONG[wrong]), cfg.work_dir, val_dataloader=cfg.val_dataloader, val_cfg={},
                    val_evaluator=cfg.val_evaluator, default_scope='mmdet',
                    experiment_name=f'{cfg.work_dir} {wrong}')
    metrics = runner.val()
    assert metrics['coco/bbox_mAP'] == pytest.approx(bbox, abs=0.1 * (1 - bbox))
    assert metrics['coco/segm_mAP'] == pytest.approx(segm, abs=0.1 * (1 - segm))
    assert len(runner.val_dataloader.dataset) == 8  # the picture without annotations too


def test_pictures_and_labels_of_training(toy, pictures):
    cfg = toy('mask_rcnn_cae_vitb_1x_coco')[0]
    init_default_scope('mmdet')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(dataset) == 8  # without the picture that has no annotations
    content = json.loads((pictures / 'annotations/instances_train2017.json').read_text())
    want = {}
    for entry in content['annotations']:
        if not entry['iscrowd']:
            want.setdefault(entry['image_id'], []).append(CATEGORY_IDS.index(entry['category_id']))
    del dataset.dataset.pipeline.transforms[3]  # the crop, which takes some away
    for i in range(8):
        sample = dataset[i]['data_samples']
        assert sample.gt_instances.labels.tolist() == want[sample.img_id]
