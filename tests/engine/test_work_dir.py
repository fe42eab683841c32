"""A directory is one training's own, and that goes on from the newest whole checkpoint in it."""
import multiprocessing
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from cae_mm.engine.log import LogBackend
from cae_mm.engine.work_dir import enter, find, lock
from cae_mm.seal import seal
from cae_mm.visualization.curves import read_scalars


@pytest.fixture
def trained(toy_runner, tmp_path):
    """A directory with epoch_1.pth and epoch_2.pth, and what to resume it with."""
    toy_runner().train()
    return tmp_path / 'work'


def found(work):
    path, _, notes = find(work, work, 'epoch_{}.pth')
    return path and path.name, ' '.join(notes)


def break_file(path):
    path.write_bytes(path.read_bytes()[:-500])


@pytest.mark.parametrize('record, file, line', [
    ('epoch_2.pth', 'epoch_2.pth', ''), ('', 'epoch_2.pth', 'last_checkpoint is empty'),
    (None, 'epoch_2.pth', 'is missing'), ('epoch_7.pth', 'epoch_2.pth', 'epoch_7.pth, which is not there'),
    ('\0\xff', 'epoch_2.pth', 'not there'), ('epoch_1.pth', 'epoch_2.pth', 'resuming from')])
def test_last_checkpoint_is_a_hint(trained, record, file, line):
    (trained / 'last_checkpoint').unlink()
    if record is not None:
        (trained / 'last_checkpoint').write_text(record)
    name, notes = found(trained)
    assert name == file and line in notes and bool(notes) == bool(line)


def test_a_damaged_one_gives_way_to_an_older_one(trained):
    break_file(trained / 'epoch_2.pth')
    name, notes = found(trained)
    assert name == 'epoch_1.pth' and 'epoch_2.pth is no whole checkpoint (' in notes
    torch.save(dict(state_dict=dict(x=torch.ones(1))), trained / 'epoch_1.pth')
    with pytest.raises(ValueError, match='epoch_2.pth is no whole.*epoch_1.pth is no whole.*load_from'):
        found(trained)
    for file in trained.glob('*.pth'):
        file.unlink()
    with pytest.raises(ValueError, match="last_checkpoint names 'epoch_2.pth', and there is neither"):
        found(trained)


def test_a_checkpoint_that_replaces_an_interrupted_one(trained):
    """The kill came after epoch 2 was named, and before that of the interruption was removed."""
    shutil.copy(trained / 'epoch_1.pth', trained / 'interrupted_iter_3.pth')
    os.utime(trained / 'interrupted_iter_3.pth', (1, 1))
    with pytest.raises(SystemExit, match='0'):
        enter(config(trained, train_cfg=dict(max_epochs=2)))
    assert sorted(path.name for path in trained.glob('*.pth')) == ['epoch_1.pth', 'epoch_2.pth']


def test_an_earlier_one_that_was_chosen_is_not_left_again(trained):
    """The run has gone on from epoch 1, and been killed: epoch 2 is of the one that was given up."""
    (trained / 'last_checkpoint').write_text('epoch_1.pth')
    os.utime(trained / 'epoch_2.pth', (1, 1))
    assert found(trained) == ('epoch_1.pth', '')


def test_a_copied_directory_has_its_own(trained, tmp_path):
    (trained / 'last_checkpoint').write_text(str(trained / 'epoch_1.pth'))  # as older versions wrote
    copy = tmp_path / 'copy'
    shutil.copytree(trained, copy)
    path, _, notes = find(copy, copy, 'epoch_{}.pth')
    assert path == copy / 'epoch_2.pth' and 'of another directory and not followed' in ' '.join(notes)
    shutil.rmtree(trained)
    assert found(copy)[0] == 'epoch_2.pth'


def test_best_checkpoint_of_a_copied_directory(trained, tmp_path, toy_runner):
    """What a copy removes is its own."""
    copy = tmp_path / 'copy'
    shutil.copytree(trained, copy)
    checkpoint = torch.load(trained / 'epoch_2.pth', weights_only=False)
    checkpoint['message_hub']['runtime_info']['best_ckpt'] = str(trained / 'best_acc_epoch_1.pth')
    torch.save(seal(checkpoint), copy / 'epoch_2.pth')
    runner = toy_runner(resume=True, work_dir=str(copy))
    runner.train()
    assert runner.message_hub.get_info('best_ckpt') == str(copy / 'best_acc_epoch_1.pth')


def test_checkpoints_elsewhere(toy_runner, tmp_path):
    options = {'default_hooks.checkpoint.out_dir': str(tmp_path / 'out')}
    toy_runner(**options).train()
    assert (tmp_path / 'out/work/epoch_2.pth').is_file()
    resumed = toy_runner(resume=True, **{**options, 'train_cfg.max_epochs': 3})
    resumed.train()
    assert resumed.model.calls == 3


def test_tells_what_is_ignored(trained, toy_runner):
    resumed = toy_runner(resume=True, **{
        'train_cfg.max_epochs': 4, 'optim_wrapper.optimizer.lr': 0.2, 'train_dataloader.num_workers': 0})
    resumed.train()
    [log] = [log for log in map(Path.read_text, trained.glob('*/*.log')) if 'this is ignored' in log]
    assert 'lr 0.2 (checkpoint: 0.1); WarmupCosineLR.end 12 (checkpoint: 6)' in log
    assert 'weight_decay' not in log.split('ignored: ')[1].splitlines()[0]


def config(work, **changes):
    return Config({**dict(
        work_dir=str(work), resume='auto', load_from=None, train_cfg=dict(max_epochs=3),
        train_dataloader=dict(batch_size=4)), **changes})


def test_a_finished_run(trained, capsys):
    before = {path: path.stat().st_mtime_ns for path in trained.glob('*')}
    with pytest.raises(SystemExit) as end:
        enter(config(trained, train_cfg=dict(max_epochs=2)))
    assert end.value.code == 0 and 'epoch_2.pth is the end of this training' in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(ValueError, match='has 2 epochs, 6 iterations, and train_cfg.max_epochs=1 asks for'):
        enter(config(trained, train_cfg=dict(max_epochs=1)))
    cfg = config(trained)
    enter(cfg)
    assert (cfg.resume, cfg.load_from) == (True, str(trained / 'epoch_2.pth'))


@pytest.mark.parametrize('most, left', [(-1, [1, 2, 3]), (1, [1, 2, 3]), (2, [2, 3]), (3, [1, 2, 3])])
def test_an_outdated_checkpoint_of_a_finished_run(toy_runner, tmp_path, monkeypatch, most, left):
    """The kill came after the last one was named, and before that was removed whose place it takes."""
    runner = toy_runner(**{'train_cfg': dict(type='ResumableEpochLoop', max_epochs=3),
                           'default_hooks.checkpoint.max_keep_ckpts': 2})
    monkeypatch.setattr('cae_mm.engine.safe_checkpoint.remove', lambda path: None)
    runner.train()
    work = tmp_path / 'work'
    os.utime(work / 'epoch_1.pth', (1, 1))
    assert len(list(work.glob('*.pth'))) == 3
    with pytest.raises(SystemExit):
        enter(config(work, default_hooks=dict(checkpoint=dict(max_keep_ckpts=most))))
    assert sorted(work.glob('*.pth')) == [work / f'epoch_{number}.pth' for number in left]


def test_a_new_run_may_start_from_weights(tmp_path):
    cfg = config(tmp_path, load_from='weights.pth')
    assert enter(cfg) == []
    assert (cfg.resume, cfg.load_from) == (False, 'weights.pth')


def test_one_log(tmp_path):
    """Each run that goes on does so in the log of the first, even when there is no checkpoint yet."""
    first = config(tmp_path, resume=False)
    enter(first)
    (tmp_path / first.log_name).mkdir()
    Path(tmp_path, 'training.lock').write_text(Path(tmp_path, 'training.lock').read_text().replace(
        first.log_name, '20200101_000000'))
    (tmp_path / '20200101_000000').mkdir()
    again, anew = config(tmp_path), config(tmp_path, resume=False)
    enter(again)
    assert again.log_name == '20200101_000000'
    enter(anew)
    assert anew.log_name != '20200101_000000'
    for elsewhere in ('..', str(tmp_path.parent), 'nowhere'):
        Path(tmp_path, 'training.lock').write_text(f'1 host {elsewhere}')
        again = config(tmp_path)
        enter(again)
        assert again.log_name[:2] == '20'


def test_a_kill_while_the_log_is_noted(tmp_path, monkeypatch):
    """The lock has the name of the log at any moment."""
    enter(first := config(tmp_path))
    (tmp_path / first.log_name).mkdir()
    monkeypatch.setattr('os.write', lambda *args: sys.exit('killed'))
    with pytest.raises(SystemExit):
        enter(config(tmp_path))
    monkeypatch.undo()
    enter(again := config(tmp_path))
    assert again.log_name == first.log_name


def hold(pipe, work):
    lock(work)
    os.write(os.open(work / 'training.lock', os.O_WRONLY), b'123 elsewhere 20200101_000000')
    pipe.send(None)
    pipe.recv()


def test_a_second_training_is_refused(tmp_path):
    here, there = multiprocessing.get_context('fork').Pipe()
    holder = multiprocessing.get_context('fork').Process(target=hold, args=(there, tmp_path))
    holder.start()
    here.recv()
    with pytest.raises(BlockingIOError, match='process 123 on elsewhere is training there'):
        lock(tmp_path)
    holder.kill()
    holder.join()
    assert lock(tmp_path)[0] == ['123', 'elsewhere', '20200101_000000']


def test_no_room_for_the_checkpoints(toy_runner, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: shutil._ntuple_diskusage(0, 0, 50))
    with pytest.raises(OSError, match='3 checkpoints of 24 bytes are to come, 50 are free'):
        toy_runner(**{'default_hooks.checkpoint.max_keep_ckpts': 2}).train()


def test_a_line_that_does_not_fit(tmp_path, small_disk):
    """The training goes on, and the curves are drawn without it."""
    backend = LogBackend(str(tmp_path / '1/vis_data'))
    backend.add_scalars(dict(loss=1.), step=1)
    with small_disk(20):
        backend.add_scalars(dict(loss=2.), step=2)
    backend.add_scalars(dict(loss=3.), step=3)
    with open(tmp_path / '1/vis_data/scalars.json', 'a') as file:
        file.write('{"loss": 4')
    assert [record['step'] for record in read_scalars(tmp_path)] == [1, 3]
