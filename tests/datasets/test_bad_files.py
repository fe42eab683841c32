"""The report of a training run."""
import json
import logging
import os
from types import SimpleNamespace

import pytest

from cae_mm.datasets import BadFilesHook, ReproducibleDataset


def make_runner(dataset, work_dir):
    return SimpleNamespace(train_dataloader=SimpleNamespace(dataset=dataset), work_dir=work_dir,
                           logger=logging.getLogger('bad_files'))


def test_summary(image_folder, config, tmp_path, caplog):
    dataset = ReproducibleDataset(config(image_folder(20, bad=[6, 7])))
    runner = make_runner(dataset, tmp_path)
    hook = BadFilesHook(max_named=1)
    hook.after_train(runner)
    assert not caplog.records and not (tmp_path / 'bad_files.json').exists()
    for index in range(20):
        dataset[index]
    hook.after_train_epoch(runner)
    hook.after_train(runner)
    assert 'skipped 2 of 20 images' in caplog.text and 'and 1 more' in caplog.text
    assert json.loads((tmp_path / 'bad_files.json').read_text()) == dataset.bad_files()


def test_names_that_are_not_utf8(image_folder, config, tmp_path, caplog):
    folder = image_folder(20, bad=[6])
    name = os.fsdecode(b'caf\xe9.png')
    (folder / 'class0/006.png').rename(folder / 'class0' / name)
    dataset = ReproducibleDataset(config(folder))
    for index in range(20):
        dataset[index]
    BadFilesHook().after_train(make_runner(dataset, tmp_path))
    listed = (tmp_path / 'bad_files.json').read_bytes()
    assert list(json.loads(listed)) == [str(folder / 'class0' / name)] and b'caf\\udce9.png' in listed
    assert 'caf\\udce9.png (OSError' in caplog.text and caplog.text.encode()
    assert not [*tmp_path.glob('bad_files.json.*')]


def test_too_many_over_all_ranks(image_folder, config, tmp_path, monkeypatch):
    dataset = ReproducibleDataset(config(image_folder(20)))

    def found_by_others(bad, op):
        bad[:3] = 1

    monkeypatch.setattr('cae_mm.datasets.reproducible.all_reduce', found_by_others)
    with pytest.raises(RuntimeError, match='3 of 20 images'):
        BadFilesHook().after_train_epoch(make_runner(dataset, tmp_path))


def test_other_datasets_are_left_alone(tmp_path):
    runner = make_runner(list(range(3)), tmp_path)
    BadFilesHook().after_train_epoch(runner)
    BadFilesHook().after_train(runner)
    assert list(tmp_path.iterdir()) == []
