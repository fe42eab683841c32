"""Masks against the official generators: the very sequence, and the distribution."""
import json
import random
import re
from collections import Counter

import numpy as np
import pytest
from scipy import ndimage

from cae_mm.transforms import BlockMask, RandomMask

DRAWS = 3000


@pytest.fixture
def official(golden):
    entries = json.loads((golden / 'manifest.json').read_text())['entries']
    return entries['masks'], np.load(golden / 'masks.npz')


def generators(entry, arrays):
    """Golden name -> our generator, for every set of statistics in the file."""
    made = {}
    for name, statistics in entry['statistics'].items():
        rows, columns = arrays[f'{name}/position_frequency'].shape
        make = BlockMask if name.startswith('block') else RandomMask
        made[name] = make((rows, columns), statistics['count'])
    return made


def seed_of(entry, generator):
    """The seed that the manifest's text gives, as in ``random.seed(52)``."""
    return int(re.search(rf'(?<![\w.]){re.escape(generator)}\((\d+)\)',
                         entry['convention']['exact']).group(1))


@pytest.mark.parametrize('name', ['masks'])
def test_exact_sequence(official, name):
    entry, arrays = official
    masks = generators(entry, arrays)
    checked = 0
    for key in (key for key in arrays if key.startswith('exact/')):
        kind = re.sub(r'_first\d+$', '', key.removeprefix('exact/'))
        sampler = next(mask for other, mask in masks.items() if other.startswith(kind))
        random.seed(seed_of(entry, 'random.seed'))
        np.random.seed(seed_of(entry, 'np.random.seed'))
        for number, expected in enumerate(arrays[key]):
            ours = sampler.sample().reshape(expected.shape)
            assert np.array_equal(ours, expected.astype(bool)), (key, number)
            checked += 1
    assert checked


@pytest.mark.parametrize('name', ['masks'])
def test_distribution(official, name):
    entry, arrays = official
    random.seed(0)
    np.random.seed(0)
    for kind, sampler in generators(entry, arrays).items():
        drawn = np.stack([sampler.sample() for _ in range(DRAWS)])
        assert (drawn.sum((1, 2)) == sampler.num_masked).all()

        ours = {
            'components': Counter(ndimage.label(mask)[1] for mask in drawn),
            'perimeter': Counter((np.diff(drawn, axis=1) != 0).sum((1, 2))
                                 + (np.diff(drawn, axis=2) != 0).sum((1, 2)))}
        for what, counts in ours.items():
            want = arrays[f'{kind}/{what}_hist']
            total = want.sum()
            frequency = want / total
            got = np.array([counts.pop(value, 0) for value in range(len(want))]) / DRAWS
            check_frequencies(got, frequency, total, (kind, what))
            # Values that the golden sample never shows are rare here, too.
            assert sum(counts.values()) <= 5 + 0.002 * DRAWS, (kind, what)
        check_frequencies(drawn.mean(0), arrays[f'{kind}/position_frequency'], total, kind)


def check_frequencies(got, want, total, message):
    """Five standard errors of a difference of two frequencies, and one draw for the rare."""
    variance = want * (1 - want)
    allowed = 5 * np.sqrt(variance * (1 / DRAWS + 1 / total)) + 2 / DRAWS
    assert (np.abs(got - want) <= allowed).all(), message
