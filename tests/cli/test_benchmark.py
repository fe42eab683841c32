"""A benchmark at toy size, as a person calls it: with a failure, and called again."""
import csv
import json
import subprocess
import time

import numpy as np
import pytest
import torch
from PIL import Image

from cae_mm.visualization.report import portable

SUITE = """
encoder = '{folder}/toy.py'
tasks = dict(
    knn=dict(run='tools/knn.py', data='imagenet', metric='knn/top1_k3', options=['--k', '3'],
             published=dict(random=50.), source='a paper'),
    finetune=dict(run='{folder}/toy.py', data='imagenet', metric='accuracy/top1',
                  options=['num_classes={{classes}}', 'max_epochs=1']),
    broken=dict(run='{folder}/toy.py', data='imagenet', metric='accuracy/top5',
                options=['num_classes={{classes}}', 'max_epochs=1']))
"""
CONFIG = """
_base_ = '{root}/configs/cls/finetune_cae_vitt_eurosat.py'
model = dict(backbone=dict(arch=dict(_delete_=True, embed_dims=16, num_layers=2, num_heads=2), img_size=16,
                           use_rel_pos_bias=False), head=dict(in_channels=16))
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
train_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(dataset=dict(pipeline=pipeline)))
val_dataloader = dict(num_workers=0, dataset=dict(pipeline=pipeline))
test_dataloader = val_dataloader
param_scheduler = dict(warmup_epochs=0)
"""


@pytest.fixture
def bench(tmp_path, run_tool):
    """A function that calls the tool on two colours of pictures and returns its output."""
    from .conftest import ROOT
    rng = np.random.default_rng(0)
    for i in range(16):
        folder = tmp_path / 'data' / ('train', 'val')[i // 8] / ('red', 'blue')[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 99, (16, 16, 3)) + [[[99, 0, 0], [0, 0, 99]][i % 2]]
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f'{i}.png')
    (tmp_path / 'toy.py').write_text(CONFIG.format(root=ROOT))
    (tmp_path / 'suite.py').write_text(SUITE.format(folder=tmp_path))

    def call(*arguments, code=0, suite=True, out='bench', seconds=600):
        given = [tmp_path / 'suite.py', '--imagenet', tmp_path / 'data', '--gpus', 0] if suite else []
        ended = run_tool('benchmark.py', *given, '--out', tmp_path / out, *arguments,
                         seconds=seconds)
        assert ended.returncode == code, ended.stderr
        return ended
    return call


def test_from_end_to_end(bench, tmp_path):
    models = '--models', 'random=none'
    printed = bench(*models, '--dry-run').stdout.splitlines()
    planned = [line for line in printed if line.startswith('python')]
    assert sum(line.startswith('# random, ') for line in printed) == 3 and '0.1 TFLOP/s' in printed[-1]
    assert len(planned) == 3 and planned[0].startswith('python tools/knn.py')
    assert not (tmp_path / 'bench').exists()
    first = bench(*models, code=1)
    assert 'no accuracy/top5 among' in first.stdout
    assert first.stderr.splitlines()[-1] == (
        'cae_mm: 1 of 3 cells failed; the same command tries them again')
    for line in planned:
        assert line in first.stdout
    content = json.loads((tmp_path / 'bench/results.json').read_text())
    rows, [knn, finetune] = content['rows'], content['records']
    for record in (knn, finetune):
        assert record['value'] == 100 * record['right'].count('1') / len(record['right'])
        assert len(record['right']) == 8 and record['chance'] == 50 and record['commit']
    assert finetune['curves']['loss'][0] == [2] and finetune['cost']['parameters'] > 0
    assert [row['task'] for row in rows] == ['knn', 'finetune'] and rows[0]['published'] == 50
    assert rows[0]['difference'] == rows[0]['mean'] - 50 and rows[0]['command'] in planned
    with open(tmp_path / 'bench/results.csv') as file:
        assert [float(row['mean']) for row in csv.DictReader(file)] == [row['mean'] for row in rows]
    again = bench(*models, '--tasks', 'knn', 'finetune')
    assert again.stdout.count('done on') == 2
    assert json.loads((tmp_path / 'bench/results.json').read_text()) == content
    table = (tmp_path / 'bench/results.md').read_text()
    assert f'| random | **{rows[0]["mean"]:.1f}** [' in table and '| chance | 50.0 | 50.0 |' in table
    assert f'| random, published (ours − it) | 50.0 ({rows[0]["difference"]:+.1f}) | – |' in table
    html = (tmp_path / 'bench/report.html').read_text()
    assert html.count('data:image/png') == 3  # losses, patches, attention
    assert portable(planned[0], tmp_path / 'bench') in html
    both = bench('--merge', tmp_path / 'bench', tmp_path / 'bench', suite=False, out='both')
    assert f'**{rows[0]["mean"]:.1f}** [' in both.stdout
    assert json.loads((tmp_path / 'both/results.json').read_text()) == content


def test_weights_of_another_model_are_refused_first(bench, tmp_path):
    torch.save(dict(a=torch.ones(2)), tmp_path / 'other.pth')
    told = bench('--models', f'mine={tmp_path / "other.pth"}', code=2).stderr.splitlines()[-1]
    assert told.startswith(f'cae_mm: --models mine={tmp_path / "other.pth"}: ')
    assert not (tmp_path / 'bench/cells').exists()


@pytest.mark.slow
def test_a_rate_is_chosen_on_images_held_out(bench, tmp_path):
    """All at once with --limit: three rates on held-out images, then one training with the best."""
    told = bench('--models', 'random=none', '--tasks', 'knn', 'finetune', '--limit', 8, '--sweep').stdout
    assert told.count('optim_wrapper.optimizer.lr=') == 5 and told.count('   chosen: ') == 1
    chosen = told.split('   chosen: ')[1].splitlines()[0]
    folder = tmp_path / 'bench/limited'
    [record] = [each for each in json.loads((folder / 'results.json').read_text())['records']
                if each['task'] == 'finetune']
    assert chosen in record['command'] and 'train_cfg.max_epochs=1' in record['command']
    tried = [json.loads(path.read_text()) for path in folder.glob('sweep/cells/*/*/*/record.json')]
    assert len(tried) == 3 and {each['same']['data'] for each in tried} != {record['same']['data']}
    best = max(tried, key=lambda each: each['value'])
    assert any(chosen in each['command'] and each['value'] == best['value'] for each in tried)


@pytest.mark.slow
def test_killed_at_three_moments(bench, tmp_path):
    """SIGKILL while it trains or measures; called again, it has the numbers of one that was not killed."""
    models = '--models', 'random=none', 'other=none', '--tasks', 'knn', 'finetune', '--seeds', '0', '1'
    start = time.monotonic()
    bench(*models, out='whole')
    quarter = (time.monotonic() - start) / 4
    for _ in range(3):
        with pytest.raises(subprocess.TimeoutExpired):  # which kills it
            bench(*models, seconds=quarter)
    bench(*models)
    found = [{(each['model'], each['task'], each['identity']['seed']): (each['value'], each['curves'])
              for each in json.loads((tmp_path / out / 'results.json').read_text())['records']}
             for out in ('whole', 'bench')]
    assert found[0] == found[1] and len(found[0]) == 8
