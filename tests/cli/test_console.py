"""The command cae-mm: the tools, from anywhere."""
import os
import re
import subprocess
import sys

import pytest

import cae_mm_console

from .conftest import ROOT
from .test_help import TOOLS


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """A function that gives the exit code, the output and the error of the command."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, 'argv', ['/env/bin/cae-mm', *arguments])
        monkeypatch.setattr(sys, 'path', ['/env/bin', *sys.path])
        code = 0
        try:
            cae_mm_console.main()
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


def test_help_is_a_line_for_each_command_and_needs_no_pytorch(tmp_path):
    command = [sys.executable, '-X', 'importtime', '-c', 'import cae_mm_console as c; c.main()', '--help']
    ran = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=True,
                         env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert not set(re.findall(r'\| +(\w+)', ran.stderr)) & {'torch', 'mmengine', 'cae_mm', 'numpy'}
    lines = dict(re.findall(r'^  (\S+) +(\S.*)$', ran.stdout, re.M))
    known = {name.removesuffix('.py').replace('_', '-') for name in TOOLS}
    assert set(lines) == known | {'configs', 'dist-run', 'dist-test', 'dist-train', 'slurm-train'}
    assert all(20 < len(line) < 105 for line in lines.values())


def test_no_words_are_a_question_for_help(call):
    assert call() == call('-h')


@pytest.mark.parametrize('name, message', [
    ('trian', 'there is no command trian, do you mean train?'),
    ('linear_probe', 'there is no command linear_probe, do you mean linear-probe?'),
    ('zzz', 'there is no command zzz; cae-mm --help lists them')])
def test_unknown_command(call, name, message):
    assert call(name) == (2, '', f'cae_mm: {message}\n')


def test_configs(call):
    code, paths, _ = call('configs', 'pretrain', 'vitb_800e')
    assert (code, paths) == (0, f'{ROOT}/configs/pretrain/cae_vitb_800e.py\n')
    assert call('configs')[1].count('\n') > 60 > 10 > call('configs', 'seg/')[1].count('\n')


@pytest.mark.parametrize('name, option', [
    ('train', '--pretrained'), ('test', '--out'), ('knn', '--linear-probe'), ('convert', '--to'),
    ('benchmark', '--models'), ('export', '--out-indices')])
def test_a_tool_has_its_options_and_the_name_of_its_command(name, option, call):
    code, text, _ = call(name, '--help')
    assert code == 0 and text.startswith(f'usage: cae-mm {name} [-h] ') and option in text


def test_a_tool_finds_our_configs(call):
    config = 'cls/linear_cae_vitb_90e.py'
    code, _, error = call('reconstruct', config, 'none', '--images', '.', '--out', 'a.png')
    assert code == 2 and error.startswith(f'cae_mm: {config} paints nothing under a mask')


def test_several_processes(call, monkeypatch):
    monkeypatch.setattr(os, 'execvp', lambda *command: print(*command, os.environ['CAE_MM_COMMAND']))
    monkeypatch.delenv('PYTHON', raising=False)
    command = ['bash', f'{ROOT}/tools/dist_run.sh', f'{ROOT}/tools/knn.py', '8', 'cae_vitb']
    assert call('dist-run', 'knn', '8', 'cae_vitb')[1] == f'bash {command} cae-mm dist-run knn 8 cae_vitb\n'
    assert os.environ['PYTHON'] == sys.executable
