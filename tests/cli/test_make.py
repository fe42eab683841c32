"""The Makefile passes what it is given as data; nothing of it is run."""
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT

PYTHON = '#!/bin/sh\nprintf "<%s>" "$OMP_NUM_THREADS" "$PYTHON" "$FORCE_CUDA" "$@"\n'
HOSTILE = ["x'; touch M; echo '", '$(shell touch M)', '`touch M`$(touch M)"; touch M; "', '--help',
           "/my/Bob's photos", '/a#b $HOME $$x', 'a\nb', '${DATA}', '$(error M)']

ALLOCATOR = dict(MALLOC_MMAP_THRESHOLD_='4294967296', MALLOC_TRIM_THRESHOLD_='17179869184')


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Runs a target of a copy, whose Python prints what it gets; returns the finished process."""
    for name in ('Makefile', 'constraints.txt', 'setup.cfg'):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / '.venv/bin/python'
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    (tmp_path / '.venv/installed').touch()
    for name in ALLOCATOR:
        monkeypatch.delenv(name, raising=False)

    def make(*arguments):
        ended = subprocess.run(['make', '-s', *arguments], cwd=tmp_path, text=True, capture_output=True)
        assert not (tmp_path / 'M').exists(), arguments
        return ended

    return make


@pytest.mark.parametrize('text', HOSTILE)
def test_what_is_given_is_data(make, text):
    ended = make('demo', f'DATA={text}', f'OUT={text}', f'PYTHON={text}', f'FORCE_CUDA={text}',
                 f'FORCE={text}', 'CORES=3')
    assert ended.stdout == f'<3><{text}><{text}><demo/demo.py><--out={text}><--data={text}><--force>'
    assert f'<demo/demo_dense.py><--out={text}>' in make('demo-dense', f'OUT={text}').stdout
    for name in ('TORCH', 'CORES'):
        refused = make('demo', f'{name}={text}')
        assert refused.returncode == 2 and f'{name} is a' in refused.stderr and not refused.stdout


def test_allocator_on_cpus(make, tmp_path, monkeypatch):
    """What is set already, in the environment or in front of the target, stays."""
    (tmp_path / '.venv/bin/python').write_text(f'#!/bin/sh\necho ${" $".join(ALLOCATOR)}\n')
    values = [] if Path('/dev/nvidiactl').exists() else list(ALLOCATOR.values())
    assert make('demo').stdout.split() == values
    assert make('demo', *(f'{name}=7' for name in ALLOCATOR)).stdout.split() == ['7', '7']
    monkeypatch.setenv('MALLOC_TRIM_THRESHOLD_', '5')
    assert make('benchmark').stdout.split()[-1] == '5'
