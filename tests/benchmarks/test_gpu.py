"""The command for GPUs runs, all of it, at toy size on a CPU."""
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_section_gives_its_rows(tmp_path):
    command = [sys.executable, '-W', 'ignore', 'benchmarks/gpu.py', '--device', 'cpu', '--toy']
    ran = subprocess.run([*command, '--out', str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
                         env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]
    rows = json.loads((tmp_path / 'gpu.json').read_text())['rows']
    assert {section: len(found) for section, found in rows.items()} == dict(
        training=3, resume=1, ddp=2, loader=2, downstream=7, pretraining=10)
    assert rows['resume'][0]['largest difference of a weight'] == 0
    page = (tmp_path / 'gpu.md').read_text()
    assert 'mean nothing' in page and 'tokenizer, ms' in page and page.count('\n## ') == 6
