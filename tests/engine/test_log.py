"""Numbers and pictures for TensorBoard, Weights & Biases and MLflow."""
import importlib.util
import json
import sqlite3
import sys

import numpy as np
import pytest
from mmengine.config import Config

from cae_mm.engine.log import BACKENDS, log_to


def logging_to(*packages):
    """The settings of a visualizer with the run's own log and these."""
    cfg = Config(dict(visualizer=dict(type='Visualizer', vis_backends=[dict(type='LogBackend')])))
    log_to(cfg, packages)
    return cfg.visualizer.to_dict()


def tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(folder)).Reload()
    [picture] = events.Images('a picture.png')
    assert (picture.height, picture.width, picture.step) == (4, 6, 3)
    return [(event.step, event.value) for event in events.Scalars('loss_line')]


def mlflow(folder):
    with sqlite3.connect(folder / 'mlflow.db') as database:
        found = database.execute('select step, value from metrics where key = "loss_line"').fetchall()
    assert [*folder.glob('artifacts/*/artifacts/images/a picture.png*step*3*.png')]
    return sorted(found)


def wandb(folder):
    [run] = folder.glob('wandb/offline-run-*')
    assert len([*run.glob('files/media/images/*.png')]) == 1
    [record] = run.glob('*.wandb')
    assert b'loss_line' in record.read_bytes()
    return None  # the numbers have a format of its own


@pytest.mark.parametrize('read', [tensorboard, wandb, mlflow])
def test_numbers_and_pictures_arrive(read, toy_runner, tmp_path, monkeypatch):
    package = read.__name__
    pytest.importorskip(package)
    monkeypatch.setenv('WANDB_MODE', 'offline')
    runner = toy_runner(visualizer=logging_to(package))
    runner.visualizer.add_image('a picture.png', np.zeros((4, 6, 3), np.uint8), 3)
    runner.train()  # which closes what is open
    [folder] = (tmp_path / 'work').glob('*/vis_data')
    logged = map(json.loads, (folder / 'scalars.json').read_text().splitlines())
    own = [(record['step'], pytest.approx(record['loss_line'])) for record in logged]
    assert read(folder) in (None, own)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    for package in BACKENDS:
        with pytest.raises(ImportError, match=f'--log {package}: .* not installed: pip install {package}$'):
            logging_to(package)


def test_a_folder_is_no_package(tmp_path, monkeypatch):
    (tmp_path / 'wandb').mkdir()
    monkeypatch.setattr('sys.path', [str(tmp_path)])
    monkeypatch.delitem(sys.modules, 'wandb', raising=False)
    with pytest.raises(ImportError, match='pip install wandb'):
        logging_to('wandb')


def test_each_once(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: importlib.util)
    monkeypatch.setattr(importlib.util, 'origin', 'here', raising=False)
    kinds = [backend['type'] for backend in logging_to('wandb', 'tensorboard', 'wandb')['vis_backends']]
    assert kinds == ['LogBackend', 'WandbVisBackend', 'TensorboardVisBackend']
