"""The demo of detection and segmentation from end to end, on a handful of scenes."""
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

import cae_mm  # noqa: F401
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
    (tmp_path / 'data/done.txt').touch()
    (tmp_path / 'tokenizer').mkdir()
    tokenizer = MODELS.build(Config.fromfile(ROOT / 'configs/tokenizer/dvae_demo.py').model)
    torch.save(tokenizer.state_dict(), tmp_path / 'tokenizer/epoch_1.pth')
    first = demo(tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.count('already done') == 2
    table = first.stdout[first.stdout.index('box AP'):]
    for row in ('from scratch', 'from CAE', 'difference'):
        assert re.search(rf'^{row}( +[-+\d.]+){{3}}$', table, re.M), table
    html = (tmp_path / 'report_dense.html').read_text()
    assert html.count('data:image/png') == 3
    for start in ('none', f'{tmp_path.name}/pretrain_long/epoch_1.pth'):
        assert html.count(f'--pretrained {start}') == 2
    assert html.count('layer_decay_rate=1') == 2
    logs = sorted(tmp_path.glob('*/*/vis_data/scalars.json'))
    assert len(logs) == 5

    again = demo(tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count('already done') == 7
    assert sorted(tmp_path.glob('*/*/vis_data/scalars.json')) == logs


def test_a_seed_has_its_own_trainings(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'demo')
    from demo_dense import TASKS
    for task in TASKS.values():
        step = task.step(Path('data'), Path('out/seed7'), 'cae', Path('cae.pth'), None, 7)
        assert 'randomness.seed=7' in step.command
        assert step.result.is_relative_to('out/seed7')
