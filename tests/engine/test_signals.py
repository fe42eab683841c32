"""A signal ends a training after its step, and nothing is lost."""
import contextlib
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import terminal
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS, METRICS, MODELS

from cae_mm.engine import launch
from cae_mm.engine.safe_checkpoint import SafeCheckpointHook
from cae_mm.engine.signals import SIGNALS, SignalHook, start_worker

VALIDATION = dict(
    val_cfg=dict(), val_evaluator=dict(type='Nothing'), val_dataloader=dict(
        batch_size=4, num_workers=0, dataset=dict(type='Points'), collate_fn=dict(type='default_collate'),
        sampler=dict(type='DefaultSampler', shuffle=False)))


@MODELS.register_module()
class PredictingLine(MODELS.get('Line')):
    """A line that can be validated."""

    def forward(self, inputs, data_samples=None, mode='loss'):
        return super().forward(inputs, data_samples) if mode == 'loss' else [inputs]


@HOOKS.register_module()
class Failing(Hook):
    """Fails, while the signals are the training's."""

    def after_train_iter(self, runner, **kwargs):
        assert signal.getsignal(signal.SIGTERM).__func__ is SignalHook._receive
        raise RuntimeError('out of memory')


@METRICS.register_module()
class Nothing(BaseMetric):
    """Measures the number of validations."""
    done = 0

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        Nothing.done += 1
        return dict(validations=Nothing.done)


@HOOKS.register_module()
class Send(Hook):
    """Sends this process a signal after some iterations, or in the next validation."""

    def __init__(self, after=None, validation=False, number=signal.SIGTERM):
        self.after, self.validation, self.number = after, validation, number

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.after and not self.validation:
            os.kill(os.getpid(), self.number)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.validation and runner.iter == self.after:
            os.kill(os.getpid(), self.number)


@pytest.fixture
def run(toy_runner, tmp_path):
    """A function that trains, and returns the code with which it ended and its runner."""
    def train(resume=False, work='work', **changes):
        send = changes.pop('send', None)
        if send:
            changes['custom_hooks'] = [dict(type='Send', **send)]
        runner = toy_runner(resume=resume, work_dir=str(tmp_path / work), **{
            'default_hooks.signals': dict(type='SignalHook'),
            'train_cfg': dict(type='ResumableEpochLoop', max_epochs=4),
            'default_hooks.checkpoint.max_keep_ckpts': 2, **changes})
        try:
            runner.train()
        except SystemExit as end:
            return end.code, runner
        return 0, runner

    return train


def test_saves_by_the_clock(run, tmp_path, monkeypatch):
    """Between the checkpoints of the epochs too, one file that goes with the next one."""
    _, whole = run(work='whole')
    save = SafeCheckpointHook.save_interrupted
    with monkeypatch.context() as patch:
        patch.setattr(SafeCheckpointHook, 'due', lambda hook: hook.last_ckpt is None)
        patch.setattr(SafeCheckpointHook, 'save_interrupted', lambda hook, *args: (
            save(hook, *args), shutil.copytree(hook.out_dir, tmp_path / 'copy')))
        run()
    assert names(tmp_path / 'copy') == ['interrupted_iter_1.pth']
    assert names(tmp_path / 'work') == ['epoch_3.pth', 'epoch_4.pth']
    code, resumed = run(resume=True, work='copy')
    assert code == 0 and resumed.model.calls == 11
    assert torch.equal(whole.model.layer.weight, resumed.model.layer.weight)


def names(folder):
    return sorted(path.name for path in folder.glob('*.pth*'))


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_goes_on_as_if_nothing_had_been(run, tmp_path, number):
    """Ended in the middle of an epoch: the same weights in the end, and the file is out of the way."""
    before = signal.getsignal(number)
    _, whole = run(work='whole')
    code, _ = run(send=dict(after=5, number=number))
    signal.signal(number, before)  # as a new process has it
    assert code == 128 + number
    work = tmp_path / 'work'
    assert names(work) == ['epoch_1.pth', 'interrupted_iter_5.pth']
    assert (work / 'last_checkpoint').read_text() == 'interrupted_iter_5.pth'
    code, resumed = run(resume=True)
    assert code == 0 and resumed.model.calls == 7
    assert names(work) == names(tmp_path / 'whole') == ['epoch_3.pth', 'epoch_4.pth']
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert signal.getsignal(number) == before


def test_gives_the_signals_back_after_an_error(toy_runner):
    before = {number: signal.getsignal(number) for number in SIGNALS}
    runner = toy_runner(**{'runner_type': 'TrainingRunner', 'custom_hooks': [dict(type='Failing')],
                           'default_hooks.signals': dict(type='SignalHook')})
    with pytest.raises(RuntimeError, match='out of memory'):
        runner.train()
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


def test_a_step_is_a_whole_one(run, tmp_path):
    """Two batches make a step: the second one is waited for; at the end of an epoch nothing repeats."""
    options = {'optim_wrapper.accumulative_counts': 2, 'train_dataloader.batch_size': 3}
    _, whole = run(work='whole', **options)
    assert run(send=dict(after=5), **options)[0] == 143
    assert names(tmp_path / 'work') == ['epoch_1.pth', 'interrupted_iter_6.pth']
    assert run(resume=True, send=dict(after=8), **options)[0] == 143
    assert names(tmp_path / 'work') == ['epoch_1.pth', 'interrupted_iter_8.pth']
    _, resumed = run(resume=True, **options)
    assert torch.equal(whole.model.layer.weight, resumed.model.layer.weight)


def test_says_how_to_go_on(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'orig_argv', ['python', 'tools/train.py', 'a b.py'])
    _, runner = run(send=dict(after=5))
    [log] = (tmp_path / 'work').glob('*/*.log')
    assert "SIGTERM: ended after iteration 5" in log.read_text()
    assert "to go on: python tools/train.py 'a b.py' --resume\n" in log.read_text()
    monkeypatch.setenv('CAE_MM_COMMAND', 'tools/dist_train.sh a.py 2 --resume ')
    run(resume=True, send=dict(after=8))
    logs = ''.join(log.read_text() for log in (tmp_path / 'work').glob('*/*.log'))
    assert 'to go on: tools/dist_train.sh a.py 2 --resume\n' in logs


@pytest.mark.parametrize('after, by_iteration', [(6, False), (12, False), (6, True), (12, True)])
def test_in_a_validation(run, tmp_path, after, by_iteration):
    """It is cut short, and done again as a whole when the run goes on, the last one too."""
    options = dict(VALIDATION, model=dict(type='PredictingLine'))
    if by_iteration:
        options.update({'train_cfg': dict(type='ResumableIterLoop', max_iters=12, val_interval=3),
                        'train_dataloader.dataset': dict(
                            type='ReproducibleDataset', dataset=dict(type='Points')),
                        'train_dataloader.sampler': dict(type='EndlessSampler'),
                        'default_hooks.checkpoint.by_epoch': False, 'param_scheduler': None})
    Nothing.done = 0
    code, runner = run(send=dict(after=after, validation=True), **options)
    assert (code, Nothing.done) == (143, after // 3 - 1)
    assert runner.iter == after
    code, _ = run(resume=True, **options)
    assert (code, Nothing.done) == (0, 4)


def test_no_validation_is_due_where_there_is_none(run, tmp_path):
    """After the last iteration its checkpoint is all there is to save."""
    options = {'train_cfg': dict(type='ResumableIterLoop', max_iters=6), 'param_scheduler': None,
               'train_dataloader.dataset': dict(type='ReproducibleDataset', dataset=dict(type='Points')),
               'train_dataloader.sampler': dict(type='EndlessSampler'),
               'default_hooks.checkpoint.by_epoch': False, 'default_hooks.checkpoint.interval': 3}
    assert run(send=dict(after=6), **options)[0] == 143
    assert names(tmp_path / 'work') == ['iter_3.pth', 'iter_6.pth']


def child(function, *arguments):
    """A process with the state of this one that is in ``function``."""
    context = multiprocessing.get_context('fork')
    here, there = context.Pipe()
    process = context.Process(target=function, args=(there, *arguments))
    process.start()
    there.close()
    here.recv()
    return process


def in_training(pipe, steps, signals):
    hook = SignalHook()
    hook.before_train(SimpleNamespace(hooks=[], message_hub=SimpleNamespace(runtime_info={})))
    for _ in range(steps):
        hook.before_train_iter(None, 0)
    pipe.send(None)
    for number in signals:
        os.kill(os.getpid(), number)
    os._exit(0)


@pytest.mark.parametrize('steps, signals, code', [
    (0, [signal.SIGTERM], 143), (1, [signal.SIGTERM], 0), (1, [signal.SIGTERM, signal.SIGINT], 130)])
def test_ends_at_once(steps, signals, code):
    """Before the first step there is nothing to save, and a second signal does not wait."""
    process = child(in_training, steps, signals)
    process.join()
    assert process.exitcode == code


def load_data(pipe):
    start_worker(lambda number: pipe.send(number), 0)
    time.sleep(60)


def test_a_process_that_loads_data_ends_with_its_parent_alone():
    process = child(load_data)
    for name in ('TERM', 'INT', 'HUP'):
        subprocess.run(['kill', f'-{name}', str(process.pid)], check=True)
    process.join(0.3)
    assert process.exitcode is None
    process.terminate()
    process.join(10)
    assert process.exitcode == 0


def train_with_a_slow_worker(pipe, runner):
    def start():
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(1)
        take_signals()

    handling = torch.utils.data._utils.signal_handling  # the first that such a process does
    take_signals, handling._set_worker_signal_handlers = handling._set_worker_signal_handlers, start
    pipe.send(None)
    runner.train()


def test_ends_while_a_process_that_loads_data_starts(toy_runner):
    """Python's end of that one, a SIGTERM, is not lost on it, and the training not left waiting for it."""
    process = child(train_with_a_slow_worker, toy_runner(**{
        'default_hooks.signals': dict(type='SignalHook'), 'train_dataloader.num_workers': 1}))
    process.join(10)
    code = process.exitcode
    process.kill()
    assert code == 130


def meet(port):
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=port, RANK='0', WORLD_SIZE='2')
    terminal.run(lambda: launch.start_processes(Config(dict(launcher='pytorch', model={}))))


def test_ends_while_another_process_does_not_come(monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    process = multiprocessing.get_context('fork').Process(target=meet, args=(port,))
    process.start()
    while True:  # until it waits there
        with socket.socket() as other, contextlib.suppress(ConnectionRefusedError):
            other.connect(('127.0.0.1', int(port)))
            break
    time.sleep(0.5)
    process.terminate()
    process.join(10)
    code = process.exitcode
    process.kill()
    assert code == -signal.SIGTERM
