"""mmpretrain's MAE, BEiT and CAE among our data, loop and evaluations."""
import itertools
import json
import runpy
import sys
from argparse import Namespace
from pathlib import Path

import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.models import MAE, MAEViT
from mmpretrain.registry import MODELS
from PIL import Image

from cae_mm.checkpoint.loader import encoder_of, load_backbone
from cae_mm.engine import launch
from cae_mm.evaluation.protocol import load_encoder, measure, prepare
from tests import toy

CONFIGS = Path(__file__).parents[2] / 'configs'
PEERS = CONFIGS / 'pretrain/peers'
THEIRS = Path(mmpretrain.__file__).parent / '.mim'
RECIPES = dict(mae='mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py',
               beit='beit/beit_beit-base-p16_8xb256-amp-coslr-300e_in1k.py',
               mmcae='cae/cae_beit-base-p16_8xb256-amp-coslr-300e_in1k.py')
# What evaluations need for an encoder with relative positions alone, which detection cannot take.
RELATIVE = {'model.backbone.use_rel_pos_bias': True}
EVALUATIONS = {
    'cls/finetune_cae_vitt_eurosat': {}, 'cls/attentive_cae_vitt_eurosat': RELATIVE,
    'seg/upernet_cae_vitt_small': {'model.backbone.pos_mode': 'resize'},
    'det/mask_rcnn_cae_vitt_small': None}


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """train/ and val/ with four noisy pictures of each of two colours, 64 x 64 pixels."""
    root, rng = tmp_path_factory.mktemp('pictures'), np.random.default_rng(0)
    colors = dict(red=(200, 0, 0), blue=(0, 0, 200))
    for split, (name, color) in itertools.product(('train', 'val'), colors.items()):
        (root / split / name).mkdir(parents=True)
        for i in range(4):
            image = np.clip(rng.normal(color, 60, (64, 64, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(root / split / name / f'{i}.png')
    return root


def load(path, work_dir=None, data_root=None, pretrained=None, **options):
    """The small copy of a config."""
    cfg = launch.load_config(Namespace(
        config=str(path), data_root=data_root, launcher='none', work_dir=work_dir, pretrained=pretrained,
        cfg_options=options))
    toy.shrink(cfg)
    return cfg


@pytest.mark.parametrize('data', ['eurosat', 'flowers', 'camvid'])
@pytest.mark.parametrize('method', RECIPES)
def test_only_the_model_and_what_it_reads_differ_from_ours(method, data):
    theirs, ours = (Config.fromfile(folder / f'{name}_vitt_{data}.py').to_dict()
                    for folder, name in ((PEERS, method), (PEERS.parent, 'cae')))
    crops = [next(step for step in cfg['pipeline'] if step['type'] == 'TwoViewCrop')
             for cfg in (theirs, ours)]
    assert crops[0] == {key: value for key, value in crops[1].items() if key in crops[0]}
    for cfg in (theirs, ours):
        assert cfg['train_dataloader']['dataset']['dataset'].pop('pipeline') == cfg.pop('pipeline')
        cfg['data_preprocessor'] = {key: cfg['data_preprocessor'][key] for key in ('mean', 'std')}
        for key in ('model', 'tokenizer', 'find_unused_parameters'):
            cfg.pop(key, None)
    assert theirs == ours


@pytest.mark.parametrize('method', RECIPES)
def test_the_recipes_of_mmpretrain(method):
    ours = Config.fromfile(PEERS / f'{method}_vitb_300e.py').to_dict()
    theirs = Config.fromfile(THEIRS / 'configs' / RECIPES[method]).to_dict()
    for cfg in (ours, theirs):
        for tokenizer in filter(None, [cfg['model'].get('target_generator')]):
            del tokenizer['init_cfg']['type']
        cfg['data_preprocessor'].pop('type')
    theirs['data_preprocessor'] = {**theirs['data_preprocessor'], **ours['data_preprocessor']}
    assert ours['model'] == theirs['model']
    assert ours['pipeline'] == theirs['train_pipeline']
    assert ours['train_dataloader']['batch_size'] == theirs['train_dataloader']['batch_size']
    optimizer, other = ours['optim_wrapper'], theirs['optim_wrapper']
    assert dict(eps=1e-8, **other['optimizer']) == optimizer['optimizer']
    for key in ('paramwise_cfg', 'clip_grad'):
        assert optimizer[key] == other.get(key)
    warm, cosine = theirs['param_scheduler']
    assert ours['param_scheduler']['warmup_epochs'] == warm['end']
    assert ours['param_scheduler']['min_lr'] == cosine.get('eta_min', 0)
    assert ours['train_cfg']['max_epochs'] == theirs['train_cfg']['max_epochs'] == cosine['end']
    assert ours['auto_scale_lr'] == theirs['auto_scale_lr']


@pytest.mark.parametrize('method', RECIPES)
def test_trained_here_and_measured_everywhere(method, pictures, tmp_path, monkeypatch):
    """The k-NN of the hook is that of tools/knn.py, and every evaluation has the encoder."""
    monkeypatch.setattr(Config, 'pretty_text', '')
    cfg = load(PEERS / f'{method}_vitt_eurosat.py', str(tmp_path), [str(pictures)], **{
        'max_epochs': 1, 'param_scheduler.warmup_epochs': 0, 'num_workers': 0, 'batch_size': 4})
    if method != 'mae':
        cfg.model.target_generator.update(tokenizer=dict(allow_random=True), init_cfg=None)
    cfg.default_hooks.knn.update(k=(1, 3), probe=False)
    runner = launch.build_runner(cfg, 'train')
    runner.train()
    [log] = tmp_path.glob('*/vis_data/scalars.json')
    records = map(json.loads, log.read_text().splitlines())
    [measured] = [record for record in records if 'knn/top1_k1' in record]
    checkpoint = str(tmp_path / 'epoch_1.pth')

    options = RELATIVE if method == 'beit' else {}
    encoder = load_encoder(load(CONFIGS / 'pretrain/cae_vitt_eurosat.py', **options), checkpoint, 'cpu')
    results = measure(*encoder, prepare(encoder[0], pictures, k=(1, 3)), k=(1, 3), progress=False)
    assert {key: measured[key] for key in results} == results

    images = torch.randn(2, 3, 64, 64)
    backbone = runner.model.eval().backbone
    with torch.no_grad():
        theirs = backbone(images, None)[-1]
        torch.testing.assert_close(encoder[0].encode(images), theirs, atol=1e-5, rtol=0)
    for name, options in EVALUATIONS.items():
        options = options if method == 'beit' else {}
        if options is not None:
            cfg = load(CONFIGS / f'{name}.py', pretrained=checkpoint, **options)
            with DefaultScope.overwrite_default_scope('mmpretrain'):
                model = MODELS.build(cfg.model.backbone)
            model.init_weights()
            first = model.blocks[0].mlp.fc1.weight
            assert torch.equal(first, backbone.layers[0].ffn.layers[0][0].weight), name


def test_relative_positions_alone_need_one_image_size(tmp_path):
    """Detection sees images of many sizes: BEiT comes with absolute positions there."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        cfg = load(PEERS / 'beit_vitt_eurosat.py', **{
            'model.backbone.use_abs_pos_emb': True, 'model.backbone.use_shared_rel_pos_bias': False})
        for name, backbone in (('absolute', cfg.model.backbone), (
                'relative', load(PEERS / 'beit_vitt_eurosat.py').model.backbone)):
            state = {f'backbone.{key}': value for key, value in MODELS.build(backbone).state_dict().items()}
            for table in (value for key, value in state.items() if key.endswith('bias_table')):
                table += 1  # trained
            torch.save(dict(state_dict=state), tmp_path / f'{name}.pth')
        model = MODELS.build(load(CONFIGS / 'det/mask_rcnn_cae_vitt_small.py').model.backbone)
        load_backbone(model, tmp_path / 'absolute.pth')
        with pytest.raises(RuntimeError, match='use_rel_pos_bias=True'):
            load_backbone(model, tmp_path / 'relative.pth')


def test_an_encoder_of_theirs_costs_no_random_numbers():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(load(PEERS / 'mae_vitt_eurosat.py').model.backbone)
    before = torch.get_rng_state()
    encoder = encoder_of(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert encoder_of(encoder) is encoder
    with pytest.raises(ValueError, match='not mmpretrain'):
        encoder_of(torch.nn.Linear(2, 2))


def test_losses_of_mmpretrains_own_training(pictures, tmp_path, monkeypatch):
    """MAE: the same images, masks and initial weights give the same losses by mmpretrain's train.py."""
    losses, numbers, loss, masking = [], itertools.count(), MAE.loss, MAEViT.random_masking

    def recorded(self, *args):
        found = loss(self, *args)
        losses.append(found['loss'].item())
        return found

    def seeded(self, *args):
        torch.manual_seed(next(numbers) % 4)
        return masking(self, *args)

    monkeypatch.setattr(MAE, 'loss', recorded)
    monkeypatch.setattr(MAEViT, 'random_masking', seeded)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=224), dict(type='PackInputs')]
    ours = load(PEERS / 'mae_vitb_300e.py', str(tmp_path / 'ours'), [str(pictures)], **{
        'num_workers': 0, 'train_dataloader.sampler.shuffle': False})
    theirs = Config.fromfile(THEIRS / 'configs' / RECIPES['mae'])
    toy.shrink(theirs)
    theirs.optim_wrapper.pop('loss_scale')
    theirs.optim_wrapper.type = 'OptimWrapper'  # theirs for half precision needs a GPU
    theirs.resume = False
    theirs.train_dataloader.update(num_workers=0, persistent_workers=False)
    theirs.train_dataloader.sampler.shuffle = False
    theirs.train_dataloader.dataset = dict(
        type='CustomDataset', data_root=str(pictures), data_prefix='train', with_label=False)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        state = MODELS.build(ours.model)
        state.init_weights()
    torch.save(dict(state_dict=state.state_dict()), tmp_path / 'start.pth')
    ours.train_dataloader.dataset.dataset.pipeline = pipeline
    theirs.train_dataloader.dataset.pipeline = pipeline
    for cfg in (ours, theirs):
        cfg.train_dataloader.batch_size, cfg.train_cfg.max_epochs = 4, 2
        cfg.param_scheduler, cfg.load_from = None, str(tmp_path / 'start.pth')
        cfg.experiment_name = f'{tmp_path} {len(cfg)}'
    theirs.dump(tmp_path / 'theirs.py')
    monkeypatch.setattr(Config, 'pretty_text', '')
    Runner.from_cfg(ours).train()
    monkeypatch.setattr(sys, 'argv', ['train.py', str(tmp_path / 'theirs.py'), '--no-pin-memory',
                                      '--no-persistent-workers', '--work-dir', str(tmp_path / 'theirs')])
    runpy.run_path(str(THEIRS / 'tools/train.py'), run_name='__main__')
    assert len(losses) == 8 and len(set(losses)) == 4
    assert losses[:4] == losses[4:]
