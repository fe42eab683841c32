"""The metafiles say of each config what is true of it."""
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from modelindex.load_model_index import load
from torch.utils.flop_counter import FlopCounterMode

import cae_mm  # noqa: F401

ROOT = Path(__file__).parents[2]
INDEX = load(str(ROOT / 'model-index.yml'))
INDEX.build_models_with_collections()
ENTRIES = {entry.name: entry.full_model for entry in INDEX.models}
GPUS = 8


def test_every_imagenet_config_is_listed_once():
    assert not INDEX.check(silent=True)
    assert len(ENTRIES) == len(INDEX.models)
    found = {path.stem for folder in ('pretrain', 'cls')
             for path in (ROOT / 'configs' / folder).glob('*.py')
             if Config.fromfile(path).model.backbone.img_size == 224}
    assert found == ENTRIES.keys()


@pytest.mark.parametrize('name', ENTRIES)
def test_size_and_schedule(name):
    entry = ENTRIES[name]
    assert Path(entry.config).stem == name
    cfg = Config.fromfile(ROOT / entry.config)
    if cfg.model.get('target_generator', {}).get('type') == 'DALLETokenizer':
        cfg.model.target_generator.init_cfg = None
    if cfg.model.get('target_generator', {}).get('type') in ('DALLETokenizer', 'DiscreteVAE'):
        cfg.model.target_generator.allow_random = True
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, 224, 224), mode='tensor')
    facts = entry.metadata.data
    assert facts['Parameters'] == sum(parameter.numel() for key, parameter in model.named_parameters()
                                      if not key.startswith('target_generator.'))
    assert facts['FLOPs'] == counter.get_total_flops() // 2  # a multiply-add counts once
    assert facts['Epochs'] == cfg.train_cfg.max_epochs
    assert facts['Batch Size'] == GPUS * cfg.train_dataloader.batch_size * cfg.optim_wrapper.get(
        'accumulative_counts', 1)


@pytest.mark.parametrize('name', [name for name, entry in ENTRIES.items() if entry.results])
def test_results_are_those_of_the_pretraining_they_name(name):
    [result] = ENTRIES[name].results
    config = (ROOT / ENTRIES[name].config)
    default = Path(Config.fromfile(config).pretrained).parent.name
    assert name in ENTRIES[default].data['Downstream']
    if 'vits' in name:
        assert result.metrics == {}
        return
    metrics = dict(result.metrics)
    assert metrics.pop('Top 1 Accuracy') == metrics[f'Top 1 Accuracy ({default})']
    for key, value in metrics.items():
        pretraining = ENTRIES[re.search(r'\((\w+)\)', key)[1]]
        assert name in pretraining.data['Downstream']
        epochs = pretraining.metadata.data['Epochs']
        assert f'{value} after {epochs}' in config.read_text()
        assert str(value) in (ROOT / pretraining.config).read_text()
