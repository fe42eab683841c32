"""Every pre-training and tokenizer config: two steps of a small copy, and on which images."""
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

from cae_mm.engine import launch
from cae_mm.engine.keys import dicts
from tests.toy import shrink

CONFIGS = Path(__file__).parents[2] / 'configs'
PATHS = {path.stem: path for kind in ('pretrain', 'tokenizer')
         for path in sorted(CONFIGS.glob(f'{kind}/**/*.py'))}
# Millions of trainable parameters of those that the metafile does not list.
SMALL = {'cae_vitt_eurosat': 3.70, 'cae_vitt_flowers': 3.75, 'cae_vitt_eurosat_whole': 4.59,
         'cae_vitt_flowers_whole': 4.64, 'cae_vitt_camvid': 4.70, 'cae_vitt_demo': 1.68,
         'dvae_imagenet': 97.62, 'dvae_eurosat': 0.27, 'dvae_camvid': 0.27, 'dvae_demo': 0.27}


@pytest.mark.parametrize('name', SMALL)
def test_size_of_small_models_and_tokenizers(name):
    cfg = Config.fromfile(PATHS[name])
    if 'target_generator' in cfg.model:
        cfg.model.target_generator.update(allow_random=True, init_cfg=None)
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained / 1e6 == pytest.approx(SMALL[name], abs=0.005)


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """Four pictures in each folder to train on, and files of other folders that cannot be read."""
    root, rng = tmp_path_factory.mktemp('pictures'), np.random.default_rng(0)
    for part in ('train/cat', 'images/training', 'val/cat', 'images/validation'):
        folder = root / part
        folder.mkdir(parents=True)
        for i in range(4):
            path = folder / f'{i}.jpg'
            if 'val' in part:
                path.write_bytes(b'not to be read')
            else:
                Image.fromarray(rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A function from the name of a config to a runner of its shrunken self, in steps of two pictures."""
    monkeypatch.setattr(Config, 'pretty_text', '')  # logging it takes longer than the training

    def build(name, *roots, workers=0, **options):
        cfg = launch.load_config(Namespace(
            config=str(PATHS[name]), data_root=[*map(str, roots)], launcher='none', work_dir=str(tmp_path),
            cfg_options={
                'train_dataloader.num_workers': workers, 'train_dataloader.batch_size': 2,
                'train_cfg.max_epochs': 1, 'param_scheduler.warmup_epochs': 0,
                'experiment_name': f'{name}_{tmp_path}', **options}))
        shrink(cfg)
        if 'target_generator' in cfg.model:
            cfg.model.target_generator.init_cfg = None
        for node in dicts(cfg.model):
            if 'num_codes' in node:
                node.allow_random = True
        cfg.default_hooks.pop('knn', None)  # the pictures have no classes
        return Runner.from_cfg(cfg)

    return build


@pytest.mark.parametrize('name, amp', [*((name, None) for name in PATHS), *((name, True) for name in (
    'cae_vitb_300e', 'cae_v2_vitb_300e', 'dvae_imagenet'))])
def test_two_steps_at_toy_size(name, amp, toy, pictures, tmp_path):
    runner = toy(name, pictures, workers=int(name in ('cae_vitb_300e', 'dvae_imagenet')),
                 **({'optim_wrapper.amp': amp} if amp else {}))
    before = {k: p.detach().clone() for k, p in runner.model.named_parameters() if p.requires_grad}
    runner.train()
    assert runner.iter == 2 and (tmp_path / 'epoch_1.pth').is_file()
    assert not (tmp_path / 'bad_files.json').exists()
    moved = [k for k, p in runner.model.named_parameters()
             if p.requires_grad and not torch.equal(p, before[k])]
    # The learning rate of the first of two steps is the peak: everything trainable moves, but for
    # keys' norm biases, whose gradients are zero, and parts of mmpretrain's models that it does not train.
    assert set(before) - set(moved) <= {k for k in before if k.endswith(
        ('norm1_k.bias', 'norm1_k_cross.bias')) or k.startswith(('target_generator.', 'teacher.'))}


def test_parts_are_not_read_together(toy, pictures, tmp_path):
    def run(root, **options):
        toy('cae_vitb_300e_pixels', root, **options).train()

    with pytest.raises(ValueError, match=f'{pictures} holds train/ and val/.*prefix=train, or .*=. if'):
        run(pictures, data_prefix='')
    with pytest.raises(RuntimeError, match='cannot be read'):
        run(pictures, data_prefix='.')  # meant so, with all there is
    for train, val in ('train2017', 'val2017'), ('training', 'validation'):
        for part in train, val:
            (tmp_path / train / part).mkdir(parents=True)
        (tmp_path / train / train / 'a.png').symlink_to(next((pictures / 'train/cat').iterdir()))
        with pytest.raises(ValueError, match=f'holds {train}/ and {val}/.*prefix={train}, or'):
            run(tmp_path / train, data_prefix='')
    with pytest.raises(FileNotFoundError, match=f'{pictures}/val/train.*{pictures}/val holds no train/: '
                       'for the images in it: --cfg-options data_prefix=$'):
        run(pictures / 'val')


def test_several_folders(toy, pictures, tmp_path):
    other = tmp_path / 'other'
    (other / 'train').mkdir(parents=True)
    for path in (pictures / 'train/cat').iterdir():
        (other / 'train' / path.name).symlink_to(path)
    runner = toy('cae_vitb_300e_pixels', pictures, other)
    runner.train()
    data = runner.train_dataloader.dataset
    assert runner.iter == 4
    assert {data.get_data_info(i)['img_path'].split('/train/')[0] for i in range(8)} == {
        str(pictures), str(other)}
