"""Checkpoints in parts: each process writes its own while the training goes on; any number reads them."""
import os
import pickle
import runpy
import shutil
import signal
import sys
import threading
from math import prod
from pathlib import Path

import pytest
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from cae_mm.benchmark.models import parse_model
from cae_mm.checkpoint import parts
from cae_mm.checkpoint.files import FileError, read_checkpoint, write_checkpoint
from cae_mm.engine import sharded_checkpoint
from cae_mm.engine.safe_checkpoint import SafeCheckpointHook
from cae_mm.engine.sharded_checkpoint import PartsWriter, take_arrays, temporary
from cae_mm.engine.work_dir import find, record_checkpoint
from cae_mm.parts import REST, crc_of
from cae_mm.seal import seal

from .test_sharding import SHARDED, train  # noqa: F401

WRITE = PartsWriter.write_data
SMOOTH = {'model.backbone.drop_path_rate': 0., 'optim_wrapper.optimizer.eps': 1e-4}
KEEP_ALL = {'default_hooks.checkpoint.max_keep_ckpts': -1}


@HOOKS.register_module()
class Act(Hook):
    """Does something after each step, when others have done what they do then."""
    priority = 'LOWEST'

    def __init__(self, action):
        self.action = action

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.action(runner)


def acts(action):
    return dict(custom_hooks=[dict(type='Collect'), dict(type=Act, action=action)])


@pytest.fixture
def run(train, on_ranks):  # noqa: F811
    """A function that trains on some ranks and gives their losses; an error, if none was killed."""
    def on(ranks, work, steps, **options):
        def one():
            try:
                return train(work, steps, wrapper=SHARDED, **{
                    'default_hooks.checkpoint.sharded': True, **SMOOTH, **options})
            except SystemExit as end:
                return end.code

        results = on_ranks(ranks, one)
        errors = [result for result in results if isinstance(result, Exception)]
        if errors and -signal.SIGKILL not in results:
            raise errors[0]
        return results
    return on


def named(work, pattern='*.*'):
    return sorted(path.name for path in work.glob(pattern) if path.suffix in ('.pth', '.dcp')
                  or 'partial' in path.name)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_other_numbers_of_processes_go_on(train, run, tmp_path, monkeypatch):  # noqa: F811
    whole = torch.stack(run(2, '2', 8, **KEEP_ALL)).mean(0)[:, 0]
    assert named(tmp_path / '2') == ['epoch_5.dcp', 'epoch_8.dcp']
    folder = tmp_path / '2/epoch_5.dcp'
    assert sorted(path.name for path in folder.iterdir()) == [
        '.metadata', '__0_0.distcp', '__1_0.distcp', 'index.pth', 'rest.pth']
    for copy in ('1', '3', 'plain'):
        shutil.copytree(folder, tmp_path / copy / 'epoch_5.dcp')
        record_checkpoint(tmp_path / copy, str(tmp_path / copy / 'epoch_5.dcp'))
    for found in (torch.stack(run(1, '1', 8, resume=True)).mean(0)[:, 0],
                  torch.stack(run(3, '3', 8, resume=True)).mean(0)[:, 0],
                  train('plain', 8, resume=True, **SMOOTH)[:, 0]):
        torch.testing.assert_close(found, whole[5:], atol=1e-5, rtol=0)
    assert named(tmp_path / 'plain') == ['epoch_5.dcp', 'epoch_8.pth']
    monkeypatch.setattr(sys, 'argv', ['convert.py', str(folder), str(tmp_path / 'out.pth')])
    runpy.run_path(str(Path(__file__).parents[2] / 'tools/convert.py'))['main']()
    state = read_checkpoint(folder)['state_dict']
    assert equal(read_checkpoint(tmp_path / 'out.pth')['state_dict'], state)
    dcp_to_torch_save(folder, tmp_path / 'theirs.pth')  # what PyTorch's own tools make of it
    theirs = torch.load(tmp_path / 'theirs.pth', weights_only=True)
    assert all(torch.equal(theirs[f'state_dict/{name}'], value) for name, value in state.items())


def test_the_training_goes_on_while_they_are_written(run, tmp_path, monkeypatch):
    options = KEEP_ALL | {'default_hooks.checkpoint.interval': 2}
    run(2, 'files', 4, **options | {'default_hooks.checkpoint.sharded': False})
    third, record = threading.Event(), tmp_path / 'parts/last_checkpoint'

    def slow(writer, *args):
        assert third.wait(20) and (writer.named.name == 'epoch_4.dcp') == record.exists()
        return WRITE(writer, *args)

    monkeypatch.setattr(PartsWriter, 'write_data', slow)
    run(2, 'parts', 4, **options, **acts(lambda runner: runner.iter == 2 and third.set()))
    assert record.read_text() == 'epoch_4.dcp'
    for epoch in (2, 4):
        found, expected = (read_checkpoint(tmp_path / work / f'epoch_{epoch}.{suffix}')
                           for work, suffix in (('parts', 'dcp'), ('files', 'pth')))
        assert equal(found['state_dict'], expected['state_dict'])
        moments, others = found['optimizer']['state'], expected['optimizer']['state']
        assert moments.keys() == others.keys() and all(equal(moments[i], others[i]) for i in others)


@pytest.mark.parametrize('moment, left', [('write_data', 'epoch_2.dcp'), ('replace_folder', 'epoch_4.dcp')])
def test_a_kill_while_they_are_written(run, tmp_path, monkeypatch, moment, left):
    """What is not all written does not count; what is has only to get its name."""
    place = PartsWriter if moment == 'write_data' else sharded_checkpoint
    calls, step = [], getattr(place, moment)

    def killed(*args):
        calls.append(args)
        if moment == 'write_data':
            result = step(*args)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return result if moment == 'write_data' else step(*args)

    options, ranks = {'default_hooks.checkpoint.interval': 2}, 2 if moment == 'write_data' else 1
    with monkeypatch.context() as patch:
        patch.setattr(place, moment, killed)
        assert -signal.SIGKILL in run(ranks, 'work', 6, **options)
    work = tmp_path / 'work'
    assert named(work) == ['epoch_2.dcp', 'epoch_4.dcp.partial-']
    assert (work / 'last_checkpoint').read_text() == 'epoch_2.dcp'
    assert find(work, work, 'epoch_{}.pth')[0].name == left
    assert len(run(ranks, 'work', 6, resume=True, **options)[0]) == 6 - int(left[6])
    assert named(work) == ['epoch_6.dcp']


def test_signals_and_the_clock(run, tmp_path, monkeypatch):
    """By the clock after each step, as soon as all have heard of it; a signal ends that.

    Then each process reads its own part; the first one has read all before, to see that it is whole.
    """
    seen = []

    def look(runner):
        seen[:] = {*seen, *named(tmp_path / 'work', 'interrupted*.dcp')}
        if runner.iter == 3 and get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        if runner.iter == 4:
            assert len(seen) > 0

    options = {'default_hooks.checkpoint.minutes': 0, 'default_hooks.checkpoint.interval': 10}
    assert run(2, 'work', 8, **options, **acts(look)) == [143, 143]
    [last] = named(tmp_path / 'work')
    assert last == 'interrupted_iter_6.dcp' == (tmp_path / 'work/last_checkpoint').read_text()
    read, payload = 0, parts._payload

    def count(*args):
        nonlocal read
        read += prod(args[-1])
        (tmp_path / f'read_{get_rank()}').write_text(str(read))
        return payload(*args)

    content = read_checkpoint(tmp_path / 'work' / last)
    whole = sum(array.numel() for array in content['state_dict'].values()) + sum(
        array.numel() for state in content['optimizer']['state'].values() for array in state.values())
    monkeypatch.setattr(parts, '_payload', count)
    assert len(run(2, 'work', 8, resume=True)[0]) == 2
    first, second = (int((tmp_path / f'read_{rank}').read_text()) for rank in (0, 1))
    assert second < 0.6 * whole < 1.4 * whole < first < 1.7 * whole
    assert named(tmp_path / 'work') == ['epoch_8.dcp']


def test_a_step_is_saved_again(run, tmp_path):
    """As for a new best one; the file of before is outdated then."""
    def again(runner):
        [hook] = [hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)]
        runner.message_hub.update_info('best_score', runner.iter)
        hook._save_checkpoint(runner)

    run(1, 'work', 1, **{'default_hooks.checkpoint.sharded': False})
    assert named(tmp_path / 'work') == ['epoch_1.pth']
    run(1, 'work', 2, resume=True, **acts(again))
    assert named(tmp_path / 'work') == ['epoch_2.dcp']
    content = read_checkpoint(tmp_path / 'work/epoch_2.dcp')
    assert content['message_hub']['runtime_info']['best_score'] == 1


def test_what_cannot_be_written(run, toy_runner, tmp_path, monkeypatch):
    """Each process says so, whichever it was, and the former one stays."""
    def poison(runner):
        if runner.iter == 1 and get_rank() == 1:
            runner.model.module.backbone.blocks[0].norm1.weight.detach().to_local().fill_(float('nan'))

    def full(writer, *args):
        if writer.named.name == 'epoch_2.dcp' and get_rank() == get_world_size() - 1:
            raise OSError(28, 'No space left on device', 'x')
        return WRITE(writer, *args)

    interval = {'default_hooks.checkpoint.interval': 1}
    with pytest.raises(FloatingPointError, match=r'blocks\.0\.norm1\.weight is not .*epoch_1\.dcp'):
        run(2, 'poison', 3, **interval, **acts(poison))
    with monkeypatch.context() as patch, pytest.raises(OSError, match='No space left'):
        patch.setattr(PartsWriter, 'write_data', full)
        run(2, 'full', 3, **interval)
    for work in ('poison', 'full'):
        assert find(tmp_path / work, tmp_path / work, 'epoch_{}.pth')[0].name == 'epoch_1.dcp'
    with pytest.raises(ValueError, match='sharded=True is for a model that is shared out: give --fsdp'):
        toy_runner(**{'default_hooks.checkpoint.sharded': True}).train()


def write(path, seed=0):
    """Write a small checkpoint in parts, with arrays of no axis and of no number in it."""
    generator = torch.Generator().manual_seed(seed)
    weight, moment = torch.rand(2, 4, 3, generator=generator)
    state = dict(weight=weight, count=torch.tensor(seed, dtype=torch.int64), none=torch.ones(0, 2))
    state['num_batches_tracked'] = state.pop('count')
    rest = dict(meta=dict(epoch=1, iter=seed), message_hub={}, state_dict=dict(state), optimizer=dict(
        state={0: dict(exp_avg=moment, step=torch.tensor(2.))}, param_groups=[dict(params=[0])]))
    arrays = take_arrays(rest)
    temporary(path).mkdir(parents=True)
    torch.save(seal(rest), temporary(path) / REST)
    dcp.async_save(arrays, storage_writer=PartsWriter(path, lambda: None)).result()
    return state, moment


class Hostile:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_what_is_written_is_read(tmp_path):
    state, moment = write(tmp_path / 'epoch_1.dcp')
    content = read_checkpoint(tmp_path / 'epoch_1.dcp')
    assert equal(content['state_dict'], state)
    assert torch.equal(content['optimizer']['state'][0]['exp_avg'], moment)
    assert content['meta'] == dict(epoch=1, iter=0)
    with pytest.raises(ValueError, match=r'is a folder of parts.*tools/convert\.py'):
        parse_model(f'name={tmp_path / "epoch_1.dcp"}')


def test_no_pickle_is_run(tmp_path):
    """Not even where the checksum of .metadata is made to fit."""
    folder, trace = tmp_path / 'epoch_1.dcp', tmp_path / 'trace'
    write(folder)
    hostile = pickle.dumps(Hostile(trace))
    (folder / '.metadata').write_bytes(hostile)
    with pytest.raises(FileError, match=r'its \.metadata is not the one that was written'):
        read_checkpoint(folder)
    index = torch.load(folder / 'index.pth', weights_only=True)
    index['meta']['sums']['.metadata'] = crc_of(folder / '.metadata')
    write_checkpoint(index['tables'], folder / 'index.pth', 'tables', index['meta'])
    read_checkpoint(folder)
    (folder / 'index.pth').unlink()
    with pytest.raises(FileError, match=r'its index\.pth is missing'):
        read_checkpoint(folder)
    for name in ('index.pth', 'rest.pth'):
        write(folder)
        (folder / name).write_bytes(hostile)
        with pytest.raises(FileError, match=rf'{name}'):
            read_checkpoint(folder)
    assert not trace.exists()
    pickle.loads(hostile)
    assert trace.exists()


@pytest.mark.parametrize('name, change, problem', [
    ('__0_0.distcp', None, r'its __0_0\.distcp is missing'),
    ('__0_0.distcp', lambda data: data[:-1], r'its __0_0\.distcp has \d+ bytes, and \d+ were written'),
    ('__0_0.distcp', lambda data: b'\0' * len(data), r'refused: .*: __0_0\.distcp: '),
    ('rest.pth', None, r'its rest\.pth is missing'),
    ('rest.pth', lambda data: data[:-1], r'its rest\.pth is not the one'),
    ('index.pth', lambda data: data[:-1], r'its index\.pth: .* truncated or damaged'),
    ('.metadata', None, r'its \.metadata is missing'),
    ('__0_0.distcp', 'other', r'__0_0\.distcp: its checksum is .*'),
    ('rest.pth', 'other', r'its rest\.pth is not the one'), ('index.pth', 'other', 'checksum|not the')])
def test_what_is_damaged_is_refused(tmp_path, name, change, problem):
    """And an older one takes its place."""
    write(tmp_path / 'epoch_1.dcp')
    write(tmp_path / 'epoch_2.dcp')
    write(tmp_path / 'other.dcp', seed=1)
    record_checkpoint(tmp_path, str(tmp_path / 'epoch_2.dcp'))
    file = tmp_path / 'epoch_2.dcp' / name
    if change is None:
        file.unlink()
    elif change == 'other':
        shutil.copy(tmp_path / 'other.dcp' / name, file)
    else:
        file.write_bytes(change(file.read_bytes()))
    with pytest.raises(FileError, match=problem):
        read_checkpoint(tmp_path / 'epoch_2.dcp')
    path, _, notes = find(tmp_path, tmp_path, 'epoch_{}.pth')
    assert path.name == 'epoch_1.dcp' and 'epoch_2.dcp is no whole checkpoint' in notes[0]


@pytest.mark.parametrize('row', [[0, 0, 9, 0, 0, 0, 4, 3], [1, 0, 900, 0, 0, 0, 4, 3], [0] * 8, [0] * 4,
                                 [0, 0, 2**40, 0, 0, 0, 4, 3], [0, 0, 900, 0, -1, 0, 4, 3]])
def test_an_index_that_lies(tmp_path, row):
    folder = tmp_path / 'epoch_1.dcp'
    write(folder)
    index = torch.load(folder / 'index.pth', weights_only=True)
    index['tables']['state_dict/weight'] = torch.tensor([row])
    write_checkpoint(index['tables'], folder / 'index.pth', 'tables', index['meta'])
    with pytest.raises(FileError, match=r'its index\.pth has'):
        read_checkpoint(folder)
