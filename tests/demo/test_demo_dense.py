"""The demo of detection and segmentation from end to end, on a handful of scenes."""
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cae_mm.models import CAEViT
from demo.make_demo_data import make_demo_data

ROOT = Path(__file__).parents[2]


def demo(out):
    return subprocess.run(
        [sys.executable, 'demo/demo_dense.py', '--out', str(out), '--views', '16', '16',
         '--length', '1', '2'],
        cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_from_end_to_end(tmp_path):
    # What the steps of demo.py leave behind.
    make_demo_data(tmp_path / 'data', num_scenes=10, max_scans=8)
    (tmp_path / 'data/source.txt').write_text('None')
    encoder = CAEViT(dict(embed_dims=128, num_layers=6, num_heads=4), img_size=64, patch_size=8)
    for name in ('data/done.txt', 'tokenizer/epoch_1.pth', 'pretrain/epoch_1.pth'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    torch.save({f'backbone.{key}': value for key, value in encoder.state_dict().items()}, tmp_path / name)
    first = demo(tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.count('already done') == 3
    table = first.stdout[first.stdout.index('box AP'):]
    for row in ('from scratch', 'from CAE', 'difference'):
        assert re.search(rf'^{row}( +[-+\d.]+){{3}}$', table, re.M), table
    html = (tmp_path / 'report_dense.html').read_text()
    assert html.count('data:image/png') == 3
    for start in ('none', tmp_path / 'pretrain/epoch_1.pth'):
        assert html.count(f'--pretrained {start}') == 2
    assert html.count('layer_decay_rate=1') == 2
    logs = sorted(tmp_path.glob('*/*/vis_data/scalars.json'))
    assert len(logs) == 4

    again = demo(tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count('already done') == 7
    assert sorted(tmp_path.glob('*/*/vis_data/scalars.json')) == logs
