"""The table of loading is printed, with how far each pipeline's values are from the default's."""
import re
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

SCRIPT = Path(__file__).parents[2] / 'benchmarks' / 'dataloader.py'


def test_stored_pixels_give_the_same_values(tmp_path, capsys, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    for number, size in enumerate([(500, 375), (1200, 900)]):
        Image.fromarray(noise).resize(size).save(tmp_path / f'{number}.jpg')
    monkeypatch.setattr(sys, 'argv', [str(SCRIPT), '--data', str(tmp_path), '--rounds', '1'])
    for module, name in ((torch, 'set_num_threads'), (cv2, 'setNumThreads')):
        monkeypatch.setattr(module, name, lambda number: None)  # other tests have this process too
    runpy.run_path(str(SCRIPT), run_name='__main__')
    rows = re.findall(r'^(.*): \d+ images/s.*\n  ([\d.]+)% within', capsys.readouterr().out, re.M)
    shares = dict(rows)
    assert [*shares] == [f'ours, {name}' for name in ('torch', 'scaled', 'device', 'stored', 'pillow')]
    assert shares['ours, stored'] == '100.00' and float(shares['ours, pillow']) > 99
    assert float(shares['ours, device']) > 99
    assert 50 < float(shares['ours, scaled']) < 100
