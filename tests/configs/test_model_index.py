"""The metafiles say of each config what is true of it."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from modelindex.load_model_index import load
from torch.utils.flop_counter import FlopCounterMode

import cae_mm  # noqa: F401
from tests.toy import is_small

ROOT = Path(__file__).parents[2]
INDEX = load(str(ROOT / 'model-index.yml'))
INDEX.build_models_with_collections()
ENTRIES = {entry.name: entry.full_model for entry in INDEX.models}
GPUS = 8


def test_every_full_size_config_is_listed_once():
    assert not INDEX.check(silent=True)
    assert len(ENTRIES) == len(INDEX.models)
    # Those of small data are no part of the index, nor is another test of the same model.
    found = {path.stem for folder in ('pretrain', 'cls', 'det', 'seg')
             for path in (ROOT / 'configs' / folder).glob('*.py')
             if not is_small(path.stem) and not path.stem.endswith('_ms')}
    assert found == ENTRIES.keys()


@pytest.mark.parametrize('name', [name for name, entry in ENTRIES.items()
                                  if Path(entry.config).parent.name in ('pretrain', 'cls')])
def test_size_and_schedule(name):
    entry = ENTRIES[name]
    assert Path(entry.config).stem == name
    cfg = Config.fromfile(ROOT / entry.config)
    if cfg.model.get('target_generator', {}).get('type') == 'DALLETokenizer':
        cfg.model.target_generator.init_cfg = None
    if cfg.model.get('target_generator', {}).get('type', 'PixelTarget') != 'PixelTarget':
        cfg.model.target_generator.allow_random = True
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model).eval()
        with FlopCounterMode(display=False) as counter:
            size = cfg.model.backbone.get('img_size', 224)
            model(torch.zeros(1, 3, size, size), mode='tensor')
    facts = entry.metadata.data
    assert facts['Parameters'] == sum(parameter.numel() for key, parameter in model.named_parameters()
                                      if not key.startswith('target_generator.'))
    assert facts['FLOPs'] == counter.get_total_flops() // 2  # a multiply-add counts once
    assert facts['Epochs'] == cfg.train_cfg.max_epochs
    assert facts['Batch Size'] == GPUS * cfg.train_dataloader.batch_size * cfg.optim_wrapper.get(
        'accumulative_counts', 1)


@pytest.mark.parametrize('name', [name for name, entry in ENTRIES.items() if entry.results])
def test_results_are_those_of_the_pretraining_they_name(name):
    config = ROOT / ENTRIES[name].config
    default = Path(Config.fromfile(config).pretrained).parent.name
    assert name in ENTRIES[default].data['Downstream']
    for result in ENTRIES[name].results:
        for key, value in result.metrics.items():
            metric, _, pretraining = key.rstrip(')').partition(' (')
            if pretraining:
                assert name in ENTRIES[pretraining].data['Downstream']
            elif f'{metric} ({default})' in result.metrics:
                assert value == result.metrics[f'{metric} ({default})']
