"""The comparison of pre-training methods: budgets, records and tables."""
import json
import statistics
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / 'benchmarks'))
import evidence  # noqa: E402
import evidence_table  # noqa: E402

# Seconds and GFLOP of an image.
TIMES = {'tokenizer': (0.002, 1.), 'cae': (0.006, 3.), 'mae': (0.004, 2.5), 'cae_whole': (0.009, 4.)}


@pytest.fixture
def make_run(tmp_path, monkeypatch):
    """Runs on 100 images, of which an epoch of CAE sees 96 and one of the tokenizer 64."""
    monkeypatch.setattr(evidence, 'RECORDS', tmp_path / 'evidence.json')
    for method, (seconds, gflops) in TIMES.items():
        evidence.note('times', f'eurosat {method}', dict(seconds=seconds, gflops=gflops))
    for number in range(100):
        path = tmp_path / f'data/train/a/{number}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def build(method, minutes=1., flops=False):
        return evidence.Run('eurosat', method, tmp_path / 'data', tmp_path / 'out', minutes, flops)
    return build


def test_the_same_minutes(make_run):
    tokenizer = 6 * 64 * 0.002
    assert make_run('mae').epochs == round(60 / 0.004 / 96)
    assert make_run('cae').epochs == round((60 - tokenizer) / 0.006 / 96)
    for method in ('mae', 'cae'):
        assert make_run(method).cost()['seconds'] == pytest.approx(60, abs=0.006 * 96)
    assert make_run('cae').cost()['before'] == dict(seconds=pytest.approx(tokenizer), gflops=6 * 64)


def test_the_same_operations(make_run):
    cae, mae = make_run('cae'), make_run('mae', flops=True)
    assert mae.cost()['gflops'] == pytest.approx(cae.cost()['gflops'], abs=2.5 * 96)
    assert mae.epochs != make_run('mae').epochs and mae.folder != make_run('mae').folder


def test_random_weights_cost_nothing(make_run, monkeypatch):
    run, asked = make_run('random'), []

    def bench(*words, log):
        asked.append([*map(str, words)])
        for task in ('attentive', 'finetune', 'knn', 'linear_quick'):
            record = run.folder / f'bench/cells/random/{task}/0/record.json'
            record.parent.mkdir(parents=True)
            record.write_text(json.dumps(dict(value=len(task))))

    monkeypatch.setattr(evidence, 'command', bench)
    run.train()
    found = run.evaluate()
    [words] = asked
    assert 'random=none' in words
    assert (found['epochs'], found['seconds'], found['knn'], found['linear']) == (0, 0., 3, 12)


def test_settings_of_a_run(make_run):
    run = make_run('cae')
    assert run.config() == 'configs/pretrain/cae_vitt_eurosat.py'
    assert f'tokenizer={run.before().checkpoint}' in run.options(9)
    assert run.before().config() == 'configs/tokenizer/dvae_eurosat.py'
    assert not any(option.startswith('tokenizer=') for option in make_run('mae').options(9))


def test_configs_of_all_methods_exist():
    for name, method in evidence.METHODS.items():
        assert (ROOT / 'configs' / f'{method.config.format(data="eurosat")}.py').is_file(), name


def test_an_ablation_has_the_epochs_of_the_whole(make_run, monkeypatch):
    run, asked = make_run('no_align'), []
    assert run.epochs == make_run('cae_whole').epochs != make_run('cae').epochs and run.cost() == {}
    assert make_run('cae_pixels').method not in evidence.ABLATION
    monkeypatch.setattr(evidence, 'command', lambda *words, log: asked.append([*map(str, words)]))
    monkeypatch.setattr(evidence.Run, 'curve', lambda run: [[1, 70., 80.]])
    record = run.folder / 'bench/cells/no_align/attentive/0/record.json'
    record.parent.mkdir(parents=True)
    record.write_text('{"value": 75}')
    found = run.evaluate()
    assert (found['knn'], found['linear'], found['attentive']) == (70., 80., 75)
    assert 'attentive' in asked[0] and 'finetune' not in asked[0]


def test_table(make_run, tmp_path, monkeypatch):
    values = [70., 72., 75.]
    for seed, value in enumerate(values):
        evidence.note('runs', f'eurosat cae 12 {seed}', dict(
            epochs=8, rate=1e-3, seconds=720, gflops=5000, before=dict(seconds=100, gflops=900),
            knn=value, linear=80., curve=[[4, value - 5, 75.], [8, value, 80.]]))
        evidence.note('runs', f'eurosat cae_whole 12 {seed}', dict(
            epochs=8, rate=1e-3, seconds=720, gflops=5000, knn=value - 1, linear=79.,
            curve=[[8, value - 1, 79.]]))
    evidence.note('runs', 'eurosat mae 20 0', dict(epochs=9, rate=1e-3, seconds=1, gflops=1, knn=1.))
    evidence.note('runs', 'eurosat no_align 12 0', dict(epochs=8, rate=1e-3, knn=66., linear=77.,
                                                        curve=[[8, 66., 77.]]))
    half = 4.303 * statistics.stdev(values) / 3 ** 0.5
    monkeypatch.setattr(evidence_table, 'DOCS', tmp_path)
    (tmp_path / 'images').mkdir()
    page = 'a\n<!-- table eurosat 12 -->\nold\n<!-- end -->\n![b](images/evidence_eurosat_12.png)\n'
    page += '<!-- ablation eurosat 12 -->\n<!-- end -->\n'
    (tmp_path / 'evidence.md').write_text('no place')
    with pytest.raises(ValueError, match='has no place for a table'):
        evidence_table.write(evidence.read())
    (tmp_path / 'evidence.md').write_text(page)
    evidence_table.write(evidence.read())
    text = (tmp_path / 'evidence.md').read_text()
    mean = statistics.mean(values)
    first, second = text.split('<!-- ablation')
    assert f'| CAE | 3 | 0.001 | 8 | 12.0 | 5 | {mean:.1f} ± {half:.1f} | 80.0 ± 0.0 |' in first
    assert 'alignment' not in first
    assert (f'| CAE, whole | 3 | 0.001 | 8 | {mean - 1:.1f} ± {half:.1f} | 79.0 ± 0.0 |\n'
            '| no alignment | 1 | 0.001 | 8 | 66.0 | 77.0 |') in second and '| CAE |' not in second
    assert 'old' not in text and 'MAE' not in text and text.startswith('a\n')
    assert cv2.imread(str(tmp_path / 'images/evidence_eurosat_12.png')) is not None
    evidence.note('runs', 'eurosat cae 12 3', dict(epochs=9, rate=1e-3, seconds=1, gflops=1, knn=1.))
    with pytest.raises(ValueError, match=r'eurosat cae has seeds of \[8, 9\] epochs'):
        evidence_table.write(evidence.read())


@pytest.mark.slow
def test_from_end_to_end(tmp_path):
    rng = np.random.default_rng(0)
    for part, number in (('train', 40), ('val', 4)):
        for label in 'ab':
            folder = tmp_path / 'data' / part / label
            folder.mkdir(parents=True)
            for index in range(number):
                cv2.imwrite(str(folder / f'{index}.jpg'), rng.integers(0, 256, (64, 64, 3), np.uint8))
    out = tmp_path / 'evidence'
    code = ('import sys, pathlib; sys.path[:0] = ["benchmarks"]; import evidence; '
            f'evidence.RECORDS = pathlib.Path("{out}.json"); evidence.main()')
    for options in (['--time'], ['--rates'], ['--seeds', '1']):
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', code, 'eurosat', '--data-root', str(tmp_path / 'data'),
             '--methods', 'mae', 'cae', '--minutes', '0.01', '--out', str(out), *options],
            cwd=ROOT, capture_output=True, text=True)
        assert not done.returncode, done.stdout + done.stderr
    records = json.loads(Path(f'{out}.json').read_text())
    assert set(records['times']) == {f'eurosat {name}' for name in ('tokenizer', 'mae', 'cae')}
    assert set(records['runs']) == {'eurosat mae 0.01 1', 'eurosat cae 0.01 1'}
    for record in records['runs'].values():
        assert record['epochs'] == 1
        assert all(0 <= record[task] <= 100 for task in ('knn', 'linear', 'attentive', 'finetune'))


def encoder(config):
    cfg = Config.fromfile(ROOT / config)
    return {key: cfg.model.backbone.get(key) for key in ('arch', 'patch_size')}


@pytest.mark.parametrize('data', evidence.DATA)
def test_tasks_take_the_encoder_that_is_trained(data):
    suite = Config.fromfile(ROOT / f'configs/benchmark/evidence_{data}.py')
    trained = encoder(evidence.METHODS['cae'].config.format(data=data).join(['configs/', '.py']))
    used = ['upernet'] if data == 'camvid' else ['attentive', 'finetune']
    assert encoder(suite.encoder) == trained
    assert all(encoder(suite.tasks[name].run) == trained for name in used)


@pytest.mark.parametrize('data, number', [('eurosat', 16), ('flowers', 7), ('camvid', 4)])
def test_methods_have_configs(data, number):
    """The first so many: the rest is the ablation, which is made for one kind of images."""
    for method in [*evidence.METHODS.values()][:number]:
        assert (ROOT / f'configs/{method.config.format(data=data)}.py').is_file()
    assert (ROOT / f'configs/{evidence.DATA[data].tokenizer}.py').is_file()
