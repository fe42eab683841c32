"""From records to a table: what leads, what is not ranked, and in which forms it is written."""
import csv
import json

import numpy as np
import pytest

from cae_mm.benchmark import markdown, merge, summarise, with_reference, write_tables
from cae_mm.benchmark.statistics import interval, not_worse, resampled
from cae_mm.benchmark.table import latex, table, verdict


def record(model, value, seed=0, task='knn', right=None, published=None, **changes):
    """As a cell leaves it."""
    return dict(
        model=model, task=task, metric='top1', value=float(value), right=right, published=published,
        chance=10. if right else None, source='a paper', seconds=60., command='python tools/knn.py',
        same=dict(data='9 files', size='64x64') | changes.pop('same', {}),
        identity=dict(seed=seed, weights=model, gpus=0) | changes)


def digits(share, images=400, seed=0):
    rng = np.random.default_rng(seed)
    return ''.join('01'[each] for each in (rng.random(images) < share).astype(int))


def percent(text):
    return 100 * text.count('1') / len(text)


def test_intervals_are_those_of_the_binomial():
    right = digits(0.8, 2000)
    samples = resampled({'a': [right]})
    low, high = interval(samples['a'])
    share = percent(right) / 100
    half = 196 * (share * (1 - share) / 2000) ** 0.5
    np.testing.assert_allclose([low, high], [100 * share - half, 100 * share + half], atol=0.25)
    assert np.array_equal(resampled({'a': [right]})['a'], samples['a'])


def test_pairing_sees_what_intervals_alone_do_not():
    """One is right where the other is, and on 2 % more: the intervals overlap, the difference is clear."""
    worse = digits(0.5)
    better = worse.replace('0', '1', 8)
    samples = resampled({'better': [better], 'worse': [worse], 'other': [digits(0.52, seed=9)]})
    assert interval(samples['worse'])[1] > interval(samples['better'])[0]
    assert 'worse' not in not_worse(samples, 'better')
    assert not_worse(samples, 'better') >= {'better', 'other'}


def test_other_numbers_of_images():
    with pytest.raises(ValueError, match="'b': 5"):
        resampled({'a': ['0101'], 'b': ['01011']})


def test_a_table():
    rights = {label: [digits(share, seed=seed) for seed in (1, 2)]
              for label, share in (('cae', 0.9), ('random', 0.3))}
    records = [record(label, percent(right), seed, right=right, published=91. if label == 'cae' else None)
               for label, found in rights.items() for seed, right in enumerate(found)]
    records += [record('cae', 40, task='upernet'), record('random', 45, task='upernet')]
    rows = summarise(records)
    assert [(row['task'], row['model'], row['leads']) for row in rows] == [
        ('knn', 'cae', True), ('knn', 'random', False), ('upernet', 'cae', False),
        ('upernet', 'random', True)]
    assert rows[0]['mean'] == np.mean([percent(right) for right in rights['cae']])
    assert rows[0]['std'] == pytest.approx(np.std(rows[0]['values'], ddof=1))
    assert rows[2]['interval'] is None
    assert verdict(rows) == 'The best, or not worse beyond chance: cae in knn; random in upernet.'
    head, chance, cae, published, random = table(rows)
    assert head == ['', 'knn', 'upernet'] and chance == ['chance', '10.0', '–']
    assert cae[1].startswith(f'**{rows[0]["mean"]:.1f} ± ') and cae[2] == '40.0'
    assert published == ['cae, published (ours − it)', f'91.0 ({rows[0]["mean"] - 91:+.1f})', '–']
    assert random[2] == '**45.0**' and 'Published: a paper' in markdown(rows)


def test_models_that_saw_other_images_are_not_ranked():
    rows = summarise([record('cae', 90), record('dino', 95, same=dict(size='96x96'))])
    assert not any(row['leads'] for row in rows) and verdict(rows) == ''
    assert table(rows)[0] == ['', 'knn †']
    assert '† knn is not ranked: the models differ in size: cae 64x64, dino 96x96' in markdown(rows)


def test_written_forms(tmp_path):
    rows = write_tables([record('a_b', 90), record('c', 50.5)], tmp_path)
    assert json.loads((tmp_path / 'results.json').read_text())['rows'] == rows
    with open(tmp_path / 'results.csv') as file:
        assert [float(row['mean']) for row in csv.DictReader(file)] == [90, 50.5]
    assert r'a\_b & \textbf{90.0} \\' in (tmp_path / 'results.tex').read_text()
    assert '| a_b | **90.0** |' in (tmp_path / 'results.md').read_text()
    assert latex(rows).count('&') == 3


def test_reference_rows(tmp_path):
    """Those of the same data stand beside one's own, and are ranked with them."""
    write_tables([record('cae', 95), record('cae', 50, task='upernet'),
                  record('mae', 80, task='linear', same=dict(data='other'))], tmp_path)
    mine = [record('mine', 90), record('mine', 60, task='linear')]
    rows = summarise(with_reference(mine, tmp_path / 'results.json'))
    assert [(row['task'], row['model'], row['leads']) for row in rows] == [
        ('knn', 'mine', False), ('knn', 'cae (reference)', True), ('linear', 'mine', True)]
    assert with_reference(mine, tmp_path / 'none.json') == mine


def test_two_benchmarks_in_one_table(tmp_path):
    write_tables([record('cae', 90), record('random', 20)], tmp_path / 'one')
    write_tables([record('mae', 80), record('random', 20)], tmp_path / 'two')
    found = merge([tmp_path / 'one', tmp_path / 'two'])
    assert [each['model'] for each in found] == ['cae', 'random', 'mae']
    write_tables([record('cae', 85, gpus=8)], tmp_path / 'three')
    with pytest.raises(ValueError, match='cae, knn, seed 0: .*one and .*three differ in gpus; give one of'):
        merge([tmp_path / 'one', tmp_path / 'three'])
    with pytest.raises(FileNotFoundError, match='four has no results.json'):
        merge([tmp_path / 'four'])
    (tmp_path / 'three/results.json').write_text('{}')
    with pytest.raises(ValueError, match='holds no records of a benchmark'):
        merge([tmp_path / 'three'])
