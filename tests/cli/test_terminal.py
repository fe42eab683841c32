"""What a person at the terminal sees of an error: a line and an exit code."""
import errno
import importlib
import json
import logging
import signal
import sys

import pytest
import terminal
import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from torch.distributed.elastic.multiprocessing import errors
from torch.utils.data import DataLoader


class Broken(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise ValueError('a.png is no picture')


@pytest.fixture(autouse=True)
def own_signals():
    """A tool takes the signals over and ends; here the process lives on."""
    before = {number: signal.getsignal(number) for number in terminal.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def deep():
    MODELS.build(dict(type='mmpretrain.CAEViT', wrong=1))


def failure(error):
    def main():
        raise error
    return main


def ended(main, capsys):
    with pytest.raises(SystemExit) as end:
        terminal.run(main)
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize('main, code, line', [
    (lambda: None, 0, ''),
    (failure(ValueError('lr=abc\n is no\n number')), 2, 'lr=abc is no number'),
    (failure(FileNotFoundError(errno.ENOENT, 'No such file or directory', 'a.pth')), 2,
     'a.pth: No such file or directory'),
    (failure(OSError(errno.ENOSPC, 'No space left', 'a.pth')), 1, 'a.pth: No space left'),
    (lambda: compile('a =', 'a.py', 'exec'), 2, 'a.py, line 1: invalid syntax'),
    (lambda: __import__('nothing'), 2, "No module named 'nothing'"),
    (lambda: {}['key'], 1, "KeyError: 'key'"),
    (lambda: 1 % 0, 1, 'ZeroDivisionError: integer'),
    (lambda: torch.ones(2) @ torch.ones(3), 1, 'RuntimeError: '),
    (deep, 2, "TypeError: CAEViT.__init__() got an unexpected keyword argument 'wrong'"),
    (lambda: next(iter(DataLoader(Broken(), num_workers=1))), 2, 'ValueError: a.png is no picture'),
    (failure(KeyboardInterrupt()), 130, 'interrupted'),
    (failure(SystemExit(143)), 143, ''),
    (failure(SystemExit('no room')), 1, 'no room'),
    (failure(ValueError('\udcff\n' * 3000)), 2, '\\udcff'),
])
def test_a_line_and_a_code(main, code, line, capsys):
    found, told = ended(main, capsys)
    assert found == code
    assert told.startswith(f'cae_mm: {line}') if line else not told
    assert told.count('\n') == bool(line) and len(told) < 9000


def test_what_this_project_refuses_is_wrong_input(capsys):
    """Whatever the kind of the error, its text is for the reader."""
    from cae_mm.datasets.sampler import EpochSampler
    code, told = ended(lambda: EpochSampler([]), capsys)
    assert code == 2 and told.startswith('cae_mm: EpochSampler counts the samples')


def test_the_traceback_is_in_the_log_or_shown(tmp_path, capsys, monkeypatch):
    logger = MMLogger.get_instance('run', log_file=str(tmp_path / 'run.log'))
    main = failure(ValueError('no picture'))
    code, told = ended(main, capsys)
    assert told.startswith(f'cae_mm: no picture (traceback: {tmp_path}') and 'Traceback' not in told
    assert 'in main\n' in (tmp_path / 'run.log').read_text()
    logging.Logger.manager.loggerDict.pop(logger.name, None)
    monkeypatch.setenv(terminal.DEBUG, '')  # what --debug sets is taken back
    terminal.Parser().parse_args(['--debug'])
    assert 'in main\n' in ended(main, capsys)[1]


def test_the_command_line_too(capsys, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['tool', '--numb'])
    code, told = ended(lambda: terminal.Parser().parse_args(), capsys)
    assert (code, told) == (2, 'cae_mm: unrecognized arguments: --numb; --help lists the options\n')


def test_several_processes_leave_the_line_to_torchrun(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('TORCHELASTIC_ERROR_FILE', str(tmp_path / 'error.json'))
    assert ended(failure(ValueError('no picture')), capsys) == (2, '')
    message = json.loads((tmp_path / 'error.json').read_text())['message']
    assert message['message'] == 'cae_mm: no picture' and 'in main' in message['extraInfo']['py_callstack']


def test_torchrun_says_it_once_and_last(run_tool, tmp_path):
    failed = run_tool('dist_train.sh', 'nothing.py', 2)
    assert failed.returncode == 2, failed.stderr
    assert failed.stderr.splitlines()[-1] == 'cae_mm: there is no config nothing.py'
    assert failed.stderr.count('no config') == 1 and 'Traceback' not in failed.stderr


def test_torchrun_ends_with_the_code_of_the_rank_that_failed(tmp_path, capsys, monkeypatch):
    """Not with that of a rank that torchrun ended while it said the same a moment earlier."""
    torchrun = importlib.import_module('torchrun')
    failures = {}
    for rank, code in ((0, 2), (1, -15)):
        file = tmp_path / f'{rank}.json'
        details = dict(py_callstack='', timestamp=str(10 - rank))
        file.write_text(json.dumps(dict(message=dict(message='cae_mm: no picture', extraInfo=details))))
        failures[rank] = errors.ProcessFailure(rank, 1, code, str(file))

    def fail(args):
        raise errors.ChildFailedError('tool', failures)

    monkeypatch.setattr(torchrun, 'launch', fail)
    monkeypatch.setattr(sys, 'argv', ['torchrun', 'tool.py'])
    assert ended(torchrun.main, capsys) == (2, 'cae_mm: no picture\n')


@pytest.mark.parametrize('name', ['GPUS', 'NNODES', 'NODE_RANK', 'PORT', 'GPUS_PER_NODE', 'CPUS_PER_TASK'])
@pytest.mark.parametrize('value', ['PATH[$(touch M; echo 0)]', 'abc', '-1', '1.5', '1 2', '1;touch M'])
def test_scripts_compute_with_numbers_alone(run_tool, tmp_path, name, value):
    slurm = name in ('GPUS_PER_NODE', 'CPUS_PER_TASK')
    command = ['slurm_train.sh', 'part', 'name', 'c.py', 'w'] if slurm else ['dist_train.sh', 'c.py', 2]
    failed = run_tool('dist_train.sh', 'c.py', value) if name == 'GPUS' else run_tool(
        *command, **{name: value})
    assert failed.returncode == 2 and failed.stderr.startswith(f'cae_mm: {name}=')
    assert failed.stderr.count('\n') == 1 and not (tmp_path / 'M').exists()


def test_no_number_of_gpus(run_tool):
    assert run_tool('dist_train.sh', 'c.py', '').stderr.startswith('cae_mm: GPUS=none is no whole number')
