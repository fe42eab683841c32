"""The demo from end to end, on a handful of own images."""
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pictures(tmp_path):
    """Two classes of eight noisy pictures, 80 x 70 pixels."""
    rng = np.random.default_rng(0)
    for name, color in (('blue', (0, 0, 200)), ('red', (200, 0, 0))):
        (tmp_path / 'pictures' / name).mkdir(parents=True)
        for i in range(8):
            image = np.clip(rng.normal(color, 50, (70, 80, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / 'pictures' / name / f'{i}.png')
    return tmp_path / 'pictures'


def demo(*args):
    return subprocess.run(
        [sys.executable, 'demo/demo.py', *map(str, args), '--views', '24', '24'], cwd=ROOT,
        capture_output=True, text=True)


def test_own_images_from_end_to_end(pictures, tmp_path):
    out = tmp_path / 'out'
    first = demo('--data', pictures, '--out', out)
    assert first.returncode == 0, first.stdout + first.stderr
    table = first.stdout[first.stdout.index('top-1 accuracy'):]
    for row in ('random encoder', 'pre-trained encoder', 'difference'):
        assert re.search(rf'^{row} +[-+\d.]+ +[-+\d.]+', table, re.M), table
    html = (out / 'report.html').read_text()
    assert html.count('data:image/png') == 3
    assert 'pre-trained encoder' in html and 'python tools/train.py' in html

    log = out / 'pretrain' / 'last_checkpoint'
    before = log.stat().st_mtime_ns
    again = demo('--data', pictures, '--out', out)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count('already done') == 6 and log.stat().st_mtime_ns == before

    other = demo('--data', ROOT / 'tests', '--out', out)
    assert other.returncode and 'choose another --out' in other.stderr
