"""Curves from the log of a run."""
import json

import pytest
from PIL import Image

from cae_mm.visualization.curves import draw_curves, read_scalars, series


@pytest.fixture
def work_dir(tmp_path):
    """A run that stopped after step 30 and was resumed from step 20."""
    for name, steps in (('20260101_100000', (10, 20, 30)), ('20260101_110000', (30, 40))):
        folder = tmp_path / name / 'vis_data'
        folder.mkdir(parents=True)
        records = [dict(step=step, lr=1 / step, loss_align=f'{step} {name}') for step in steps]
        records.append({'step': 2, 'knn/top1_k20': 33.0})
        (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, records)))
    return tmp_path


def test_resumed_steps_replace_earlier_ones(work_dir):
    steps, values = series(read_scalars(work_dir), 'loss_align')
    assert steps.tolist() == [10, 20, 30, 40]
    assert values.tolist() == ['10 20260101_100000', '20 20260101_100000', '30 20260101_110000',
                               '40 20260101_110000']


def test_draws_what_was_logged(work_dir, tmp_path):
    draw_curves(work_dir, tmp_path / 'two.png', ('lr', 'knn/top1_k20'))
    draw_curves(work_dir, tmp_path / 'one.png', ('lr', 'accuracy'))  # accuracy was not logged
    two, one = Image.open(tmp_path / 'two.png'), Image.open(tmp_path / 'one.png')
    assert two.width == pytest.approx(2 * one.width, rel=0.01)


def test_lines_of_two_runs(work_dir, tmp_path):
    other = tmp_path / 'other' / 'run' / 'vis_data'
    other.mkdir(parents=True)
    (other / 'scalars.json').write_text('{"step": 5, "mIoU": 40.0}\n{"step": 5, "lr": 0.3}\n')
    draw_curves({'one': [work_dir], 'two': [work_dir, other.parents[1]]}, tmp_path / 'lines.png',
                ('lr', 'mIoU'))
    drawn = Image.open(tmp_path / 'lines.png').convert('RGB')
    colours = {colour for _, colour in drawn.getcolors(drawn.width * drawn.height)}
    assert {(31, 95, 168), (196, 87, 43)} <= colours


def test_no_log(tmp_path):
    with pytest.raises(FileNotFoundError, match='has no .*scalars.json'):
        read_scalars(tmp_path)
