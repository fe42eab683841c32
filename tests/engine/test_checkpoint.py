"""A good checkpoint exists at every moment."""
import os
from pathlib import Path

import pytest
import torch

from cae_mm.engine import AtomicLocalBackend


def saved(work):
    return sorted(path.name for path in work.glob('*.pth*'))


def test_a_file_is_whole_or_absent(tmp_path, monkeypatch):
    file = tmp_path / 'sub' / 'a.pth'
    backend = AtomicLocalBackend()
    backend.put(b'first', file)

    def killed(*_):
        raise KeyboardInterrupt

    for step in ('fsync', 'replace'):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, step, killed)
            backend.put(b'second', file)
        assert file.read_bytes() == b'first'
    backend.put_text('third', file)
    assert file.read_text() == 'third'


def test_keeps_the_last_and_cleans_up(toy_runner, tmp_path):
    work = tmp_path / 'work'
    work.mkdir()
    (work / 'epoch_9.pth.partial-123').write_bytes(b'half')
    toy_runner(**{'train_cfg.max_epochs': 4, 'default_hooks.checkpoint.max_keep_ckpts': 2}).train()
    assert saved(work) == ['epoch_3.pth', 'epoch_4.pth']
    assert (work / 'last_checkpoint').read_text() == str(work / 'epoch_4.pth')


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
    assert (work / 'last_checkpoint').read_text() == str(work / 'epoch_1.pth')
    resumed = toy_runner(resume=True, **{'default_hooks.checkpoint.max_keep_ckpts': 1})
    resumed.train()
    assert resumed.model.calls == 3
    assert saved(work) == ['epoch_2.pth']


def test_refuses_weights_that_are_not_finite(toy_runner, tmp_path):
    runner = toy_runner(custom_hooks=[dict(type='Poison')])
    with pytest.raises(FloatingPointError, match=r'layer\.weight is not finite.*epoch_1\.pth'):
        runner.train()
    assert saved(tmp_path / 'work') == ['epoch_1.pth']
    state = torch.load(tmp_path / 'work/epoch_1.pth', weights_only=False)['state_dict']
    assert state['layer.weight'].isfinite().all()
