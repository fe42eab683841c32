"""What the comparison of methods trains and what it evaluates are of one kind."""
import runpy
from pathlib import Path

import pytest
from mmengine.config import Config

ROOT = Path(__file__).parents[2]
EVIDENCE = runpy.run_path(str(ROOT / 'benchmarks/evidence.py'))


def encoder(config):
    cfg = Config.fromfile(ROOT / config)
    return {key: cfg.model.backbone.get(key) for key in ('arch', 'patch_size')}


@pytest.mark.parametrize('data', EVIDENCE['DATA'])
def test_tasks_take_the_encoder_that_is_trained(data):
    suite = Config.fromfile(ROOT / f'configs/benchmark/evidence_{data}.py')
    trained = encoder(EVIDENCE['METHODS']['cae'].config.format(data=data).join(['configs/', '.py']))
    used = ['upernet'] if data == 'camvid' else ['attentive', 'finetune']
    assert encoder(suite.encoder) == trained
    assert all(encoder(suite.tasks[name].run) == trained for name in used)


@pytest.mark.parametrize('data, number', [('eurosat', 16), ('flowers', 7), ('camvid', 4)])
def test_methods_have_configs(data, number):
    """The first so many: the rest is the ablation, which is made for one kind of images."""
    for method in [*EVIDENCE['METHODS'].values()][:number]:
        assert (ROOT / f'configs/{method.config.format(data=data)}.py').is_file()
    assert (ROOT / f'configs/{EVIDENCE["DATA"][data].tokenizer}.py').is_file()
