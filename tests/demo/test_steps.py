"""A demo that is ended ends what it has started."""
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = """
import signal, sys, time
def end(number, frame):
    open(sys.argv[1], 'w').write(str(number))
    sys.exit(128 + number)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, end)
open(sys.argv[1] + '.started', 'w')
time.sleep(60)
"""


def wait_for(path):
    for _ in range(200):
        if path.exists() and path.read_text() or path.suffix == '.started' and path.exists():
            return
        time.sleep(0.05)
    raise TimeoutError(path)


def run_step(Step, tmp_path):
    Step('A step', [tmp_path / 'command.py', tmp_path / 'ended'], tmp_path / 'result').run(tmp_path, False)


@pytest.mark.parametrize('sent, received', [
    (signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT), (signal.SIGHUP, signal.SIGHUP),
    (signal.SIGKILL, signal.SIGTERM)])
def test_a_signal_reaches_the_command(tmp_path, monkeypatch, sent, received):
    for folder in ('demo', 'tools'):
        monkeypatch.syspath_prepend(ROOT / folder)
    from steps import Step
    (tmp_path / 'command.py').write_text(COMMAND)
    process = multiprocessing.get_context('fork').Process(target=run_step, args=(Step, tmp_path))
    process.start()
    wait_for(tmp_path / 'ended.started')
    os.kill(process.pid, sent)
    process.join(20)
    assert process.exitcode == (-sent if sent == signal.SIGKILL else 128 + sent)
    wait_for(tmp_path / 'ended')
    assert (tmp_path / 'ended').read_text() == str(int(received))


@pytest.mark.parametrize('flags, options', [('flags\t: fpu avx512f avx512_bf16 amx_tile', ['--amp']),
                                            ('flags\t: fpu avx512f', []), (None, [])])
def test_bfloat16_where_the_processor_has_it(monkeypatch, flags, options):
    for folder in ('demo', 'tools'):
        monkeypatch.syspath_prepend(ROOT / folder)
    from steps import precision

    def read_text(path):
        if flags is None:
            raise FileNotFoundError(path)
        return flags
    monkeypatch.setattr(Path, 'read_text', read_text)
    assert precision() == options
