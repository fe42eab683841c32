"""A few cases of each part, always the same; ``make chaos`` runs thousands."""
import json
import os
import subprocess
import sys

import pytest

from .toys import ROOT

CASES = dict(kills=8, checkpoints=60, images=40, options=40, disk=12)


@pytest.fixture(scope='session')
def found(tmp_path_factory):
    """The summary of one run: in a process of its own, whose children are forked before it has threads."""
    out = tmp_path_factory.mktemp('chaos') / 'found.json'
    subprocess.run([sys.executable, '-W', 'ignore', '-m', 'tests.chaos', '--out', out,
                    *(f'{part}={number}' for part, number in CASES.items())],
                   cwd=ROOT, env=dict(os.environ, PYTHONPATH=str(ROOT)), timeout=600)
    return json.loads(out.read_text())


@pytest.mark.parametrize('part', CASES)
def test_chaos(found, part):
    """Again, one alone: ``python -m tests.chaos PART --case N``."""
    failed = [case for case in found['failures'] if case['part'] == part]
    assert found['parts'][part]['cases'] == CASES[part]
    assert not failed, json.dumps(failed, indent=1)
