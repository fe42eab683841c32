"""The demo of detection and segmentation from end to end, on a handful of scenes."""
import re
import subprocess
import sys
from pathlib import Path

from demo.make_demo_data import make_demo_data

ROOT = Path(__file__).parents[2]


def demo(out):
    return subprocess.run(
        [sys.executable, 'demo/demo_dense.py', '--out', str(out), '--views', '16', '16',
         '--length', '1', '2'],
        cwd=ROOT, capture_output=True, text=True)


def test_from_end_to_end(tmp_path):
    # What the demo's first step leaves behind.
    make_demo_data(tmp_path / 'data', num_scenes=10, max_scans=8)
    (tmp_path / 'data/source.txt').write_text('None')
    (tmp_path / 'data/done.txt').write_text('')
    first = demo(tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.count('already done') == 1
    table = first.stdout[first.stdout.index('box AP'):]
    for row in ('from scratch', 'from CAE', 'difference'):
        assert re.search(rf'^{row}( +[-+\d.]+){{3}}$', table, re.M), table
    html = (tmp_path / 'report_dense.html').read_text()
    assert html.count('data:image/png') == 3
    for start in ('none', tmp_path / 'pretrain/epoch_1.pth'):
        assert html.count(f'--pretrained {start}') == 2
    assert html.count('layer_decay_rate=1') == 2
    logs = sorted(tmp_path.glob('*/*/vis_data/scalars.json'))
    assert len(logs) == 6

    again = demo(tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count('already done') == 7
    assert sorted(tmp_path.glob('*/*/vis_data/scalars.json')) == logs
