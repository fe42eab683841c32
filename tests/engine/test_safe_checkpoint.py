"""A good checkpoint exists at every moment."""
import os
from pathlib import Path

import pytest
import torch


def saved(work):
    return sorted(path.name for path in work.glob('*.pth*'))


def test_keeps_the_last_and_cleans_up(toy_runner, tmp_path):
    work = tmp_path / 'work'
    work.mkdir()
    (work / 'epoch_9.pth.partial-123').write_bytes(b'half')
    earlier = work / '20260101_000000' / 'vis_data' / 'config.py.partial-123'
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b'half')
    toy_runner(**{'train_cfg.max_epochs': 4, 'default_hooks.checkpoint.max_keep_ckpts': 2}).train()
    assert not earlier.exists()
    assert saved(work) == ['epoch_3.pth', 'epoch_4.pth']
    assert (work / 'last_checkpoint').read_text() == 'epoch_4.pth'


def test_the_old_one_goes_after_the_new_one_came(toy_runner, tmp_path, monkeypatch):
    work = tmp_path / 'work'
    replace = os.replace

    def killed_at_second_epoch(source, target):
        if Path(target).name == 'epoch_2.pth':
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, 'replace', killed_at_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        toy_runner(**{'default_hooks.checkpoint.max_keep_ckpts': 1}).train()
    monkeypatch.undo()
    assert (work / 'last_checkpoint').read_text() == 'epoch_1.pth'
    resumed = toy_runner(resume=True, **{'default_hooks.checkpoint.max_keep_ckpts': 1})
    resumed.train()
    assert resumed.model.calls == 3
    assert saved(work) == ['epoch_2.pth']


def test_a_kill_while_the_last_checkpoint_is_named(toy_runner, tmp_path):
    toy_runner().train()
    record = tmp_path / 'work/last_checkpoint'
    record.write_text('')  # mmengine empties the file before it writes the name
    resumed = toy_runner(resume=True, **{'train_cfg.max_epochs': 3})
    resumed.train()
    assert resumed.model.calls == 3
    assert record.read_text().endswith('epoch_3.pth')


def test_refuses_weights_that_are_not_finite(toy_runner, tmp_path):
    runner = toy_runner(custom_hooks=[dict(type='Poison')])
    with pytest.raises(FloatingPointError, match=r'layer\.weight is not finite.*epoch_1\.pth'):
        runner.train()
    assert saved(tmp_path / 'work') == ['epoch_1.pth']
    state = torch.load(tmp_path / 'work/epoch_1.pth', weights_only=False)['state_dict']
    assert state['layer.weight'].isfinite().all()
