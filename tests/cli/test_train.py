"""tools/train.py as it is called, on CPU."""
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

ROOT = Path(__file__).parents[2]


def weights(path):
    return torch.load(path, weights_only=False)['state_dict']


def checkpoints(work):
    return [path.name.split('.partial')[0] for path in sorted(work.glob('*.pth*'))]


def losses(work):
    """What was logged for each iteration, the last where it ran twice."""
    found = {}
    for log in sorted(work.glob('*/vis_data/scalars.json')):
        for line in map(json.loads, log.read_text().splitlines()):
            found[line['iter']] = (line['loss_reconstruct'], line['loss_align'], line['lr'])
    return found


@pytest.mark.slow
def test_resume_after_a_kill(toy_config, run_tool, call_tool, tmp_path):
    """Killed within an epoch while it saved, resumed with workers, interrupted and resumed again, as if
    it had not been."""
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    call_tool('train.py', toy_config, '--work-dir', whole)
    stopped = run_tool('train.py', toy_config, '--work-dir', killed, KILL_AT='iter_10.pth')
    assert stopped.returncode == -signal.SIGKILL, stopped.stderr
    assert checkpoints(killed) == ['iter_10.pth', 'iter_5.pth']
    assert not (killed / 'iter_10.pth').exists()
    go_on = ['train.py', toy_config, '--work-dir', killed, '--resume', '--cfg-options',
             'train_dataloader.num_workers=1']
    ended = run_tool(*go_on, SIGINT_AT='9')
    assert ended.returncode == 128 + signal.SIGINT and 'Traceback' not in ended.stderr, ended.stderr
    assert checkpoints(killed) == ['interrupted_iter_9.pth', 'iter_5.pth']
    resumed = run_tool(*go_on)
    assert resumed.returncode == 0, resumed.stderr
    [log] = killed.glob('*/*.log')
    assert f'to go on: {sys.executable} ' in log.read_text()

    assert checkpoints(killed) == checkpoints(whole) == ['iter_12.pth']
    expected = losses(whole)
    assert list(expected) == list(range(1, 13))
    assert losses(killed) == expected
    got = weights(killed / 'iter_12.pth')
    assert all(torch.equal(got[name], value)
               for name, value in weights(whole / 'iter_12.pth').items())


def test_two_processes_are_one_with_twice_the_batch(toy_config, run_tool, call_tool, tmp_path):
    # The large eps keeps Adam from blowing up the rounding of gradients that are zero.
    options = ['train_cfg.max_epochs=2', 'model.backbone.drop_path_rate=0',
               'optim_wrapper.optimizer.lr=0.01', 'optim_wrapper.optimizer.eps=1e-3',
               'param_scheduler.warmup_epochs=0']
    one, two = tmp_path / 'one', tmp_path / 'two'
    call_tool('train.py', toy_config, '--work-dir', one, '--cfg-options', *options,
              'train_dataloader.batch_size=8')
    with socket.socket() as other:
        with suppress(OSError):  # taken already
            other.bind(('127.0.0.1', 29500))  # as by another run on this machine
            other.listen()
        finished = run_tool('dist_train.sh', toy_config, 2, '--work-dir', two, '--cfg-options', *options)
    assert finished.returncode == 0, finished.stderr
    expected, got = (weights(work / 'iter_6.pth') for work in (one, two))
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-6, msg=name)

    # A signal to the second process ends both after the next step.
    again = ['dist_train.sh', toy_config, 2, '--work-dir', tmp_path / 'again', '--resume', '--cfg-options',
             *options]
    ended = run_tool(*again, SIGTERM_AT='2')
    assert ended.returncode == 128 + signal.SIGTERM, ended.stderr
    assert checkpoints(tmp_path / 'again') == ['interrupted_iter_3.pth']
    [log] = (tmp_path / 'again').glob('*/*.log')
    assert re.search('SIGTERM: ended after iteration 3.*to go on: .*tools/dist_train.sh .*--resume\n',
                     log.read_text())
    assert run_tool(*again).returncode == 0
    went_on = weights(tmp_path / 'again/iter_6.pth')
    assert all(torch.equal(went_on[name], value) for name, value in got.items())


def test_options_reach_the_run(toy_config, call_tool, tmp_path):
    work = tmp_path / 'work'
    call_tool('train.py', toy_config, '--work-dir', work, '--amp', '--auto-scale-lr', '--resume',
              'auto', '--cfg-options', 'train_cfg.max_epochs=1', 'compile_model.backend=eager')
    dumped = Config.fromfile(work / toy_config.name, import_custom_modules=False)
    assert dumped.optim_wrapper.amp and dumped.auto_scale_lr.enable
    # Batches of 4 images, the rate is for 2048; its peak is the last step of the only epoch.
    assert losses(work)[6][2] == pytest.approx(1.5e-3 * 4 / 2048)


@pytest.mark.parametrize('tool, options, message', [
    ('train.py', ['--data-root', 'nothing'], 'there is no nothing: .*--data-root'),
    ('train.py', ['--pretrained', 'nothing.pth'], 'there is no nothing.pth: .*--pretrained'),
    ('train.py', ['--cfg-options', 'load_from=nothing.pth'], 'there is no nothing.pth: .*load_from='),
    ('train.py', ['--resume', 'nothing.pth'], '--resume nothing.pth'),
    ('train.py', ['--auto-scale-lr', '--cfg-options', 'auto_scale_lr.base_batch_size=None'],
     'base_batch_size'),
    ('test.py', ['nothing.pth'], 'no checkpoint nothing.pth'),
    ('test.py', [__file__], 'evaluates nothing'),
    ('test.py', [__file__, '--out', 'a.txt'], 'a.txt.*json'),
])
def test_wrong_options(toy_config, call_tool, tmp_path, tool, options, message):
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        call_tool(tool, toy_config, '--work-dir', tmp_path / 'work', *options)
    assert not (tmp_path / 'work').exists()


AT_EXIT = '''
import atexit
import os

import torch


@atexit.register
def tell():
    print(torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic,
          torch.backends.cudnn.benchmark, os.environ['CUBLAS_WORKSPACE_CONFIG'])
'''


def test_new_parts_of_a_trained_model(toy_config, call_tool, tmp_path):
    """They start anew, everything else from the checkpoint; resumed, nothing does."""
    first, second = tmp_path / 'first', tmp_path / 'second'
    options = ['lr=1e-50', 'param_scheduler.min_lr=0.']
    call_tool('train.py', toy_config, '--work-dir', first, '--cfg-options', *options, 'max_epochs=1',
              'randomness.seed=1')
    again = ['train.py', toy_config, '--work-dir', second, '--resume', '--new-parts', 'head.blocks',
             '--cfg-options', f'load_from={first / "iter_6.pth"}', *options]
    call_tool(*again, 'max_epochs=1')
    [log] = second.glob('*/*.log')
    assert 'new parts, which keep their initial weights: head.blocks (' in log.read_text()
    call_tool(*again, 'max_epochs=2')
    old, new = weights(first / 'iter_6.pth'), weights(second / 'iter_12.pth')
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed and all(name.startswith('head.blocks.') for name in changed)
    with pytest.raises(ValueError, match='--new-parts are those that a checkpoint does not fill'):
        call_tool(*again[:-4])


def test_deterministic(toy_config, run_tool, tmp_path):
    """PyTorch refuses whatever could differ, and the training uses nothing of that kind."""
    (tmp_path / 'interruption.py').write_text(AT_EXIT)
    ended = run_tool('train.py', toy_config, '--work-dir', tmp_path / 'work', '--deterministic',
                     '--cfg-options', 'train_cfg.max_epochs=1')
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith('True True False :4096:8\n')


def test_shell_usage(run_tool):
    for tool, words in (('dist_train.sh', 'CONFIG GPUS'), ('dist_test.sh', 'CHECKPOINT GPUS'),
                        ('slurm_train.sh', 'PARTITION JOB_NAME'), ('dist_run.sh', 'TOOL GPUS')):
        failed = run_tool(tool, 'config.py')
        assert failed.returncode == 2 and words in failed.stderr


def script(path, line):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/usr/bin/env bash\n{line}\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize('environment, expected', [
    ({}, '.venv'), (dict(CONDA_DEFAULT_ENV='base'), '.venv'), (dict(CONDA_DEFAULT_ENV='mine'), 'active'),
    (dict(VIRTUAL_ENV='mine'), 'active'), (dict(VIRTUAL_ENV='mine', PYTHON='chosen'), 'chosen')])
def test_python_of_the_scripts(tmp_path, environment, expected):
    """A checkout with the environment that make has made."""
    script(tmp_path / '.venv/bin/python', 'echo .venv "$@"')
    for name, prints in (('python', 'active'), ('chosen', 'chosen')):
        script(tmp_path / 'bin' / name, f'echo {prints} "$@"')
    copy = shutil.copy(ROOT / 'tools/python.sh', script(tmp_path / 'tools/python.sh', ''))
    ended = subprocess.run(['bash', copy, '-m', 'a b'], text=True, capture_output=True, env=dict(
        environment, PATH=f'{tmp_path}/bin:/usr/bin:/bin'))
    assert ended.stdout == f'{expected} -m a b\n', ended.stderr


@pytest.mark.parametrize('given', [{}, dict(MALLOC_MMAP_THRESHOLD_='1')])
def test_allocator_of_the_scripts(given):
    """On CPUs; what is set already stays."""
    default = '' if Path('/dev/nvidiactl').exists() else '4294967296'
    ended = subprocess.run(
        ['bash', ROOT / 'tools/python.sh', '-c', 'echo $MALLOC_MMAP_THRESHOLD_'], text=True,
        capture_output=True, env=dict(given, PATH='/usr/bin:/bin', PYTHON='sh'))
    assert ended.stdout == f"{given.get('MALLOC_MMAP_THRESHOLD_', default)}\n", ended.stderr


def test_slurm(run_tool, tmp_path):
    script(tmp_path / 'bin/srun', 'echo "port ${MASTER_PORT:-of the job}:" "$@"')
    path = f'{tmp_path / "bin"}:/usr/bin:/bin'
    arguments = 'part', 'name', 'config.py', 'work', '--amp'
    told = run_tool('slurm_train.sh', *arguments, PATH=path, GPUS='16', GPUS_PER_NODE='4').stdout
    assert told.startswith('port of the job: -p part --job-name=name --gres=gpu:4 --ntasks=16')
    assert told.endswith('tools/train.py config.py --work-dir work --launcher slurm --amp\n')
    assert run_tool('slurm_train.sh', *arguments, PATH=path, PORT='1234').stdout.startswith('port 1234:')


@pytest.mark.parametrize('code, requeued', [(0, ''), (1, ''), (143, 'requeue 7'), (137, 'requeue 7')])
def test_slurm_goes_on_by_itself(run_tool, tmp_path, code, requeued):
    """The batch job, with the step that ends with a code, in place of Slurm."""
    script(tmp_path / 'bin/sbatch', 'echo "$@" > options; SLURM_JOB_ID=7 exec bash')
    script(tmp_path / 'bin/srun', f'echo "$@" > step; exit {code}')
    script(tmp_path / 'bin/scontrol', 'echo "$@"')
    ended = run_tool('slurm_train.sh', 'part', 'name', 'config.py', 'a b', '--fsdp', REQUEUE='1',
                     GRACE='60', PATH=f'{tmp_path / "bin"}:/usr/bin:/bin')
    assert (ended.returncode, ended.stdout.strip()) == (0 if requeued else code, requeued)
    assert '--requeue --open-mode=append --signal=TERM@60' in (tmp_path / 'options').read_text()
    assert (tmp_path / 'step').read_text().endswith(
        'tools/train.py config.py --work-dir a b --launcher slurm --fsdp --resume\n')
