"""The demo's benchmark from end to end, with a handful of training steps."""
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_from_end_to_end(tmp_path):
    command = [sys.executable, 'demo/benchmark.py', '--out', str(tmp_path), '--views', '64', '64', '64',
               '--tasks', 'knn', 'attentive']
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    records = json.loads((tmp_path / 'benchmark/results.json').read_text())['records']
    assert [(each['task'], each['model']) for each in records] == [
        (task, model) for task in ('knn', 'attentive') for model in ('random', 'cae', 'mae')]
    assert 'mmpretrain-vit' in records[-1]['conversion'][0]
    assert (tmp_path / 'benchmark/report.html').read_text().count('data:image/png') == 3
