"""Counts, bounds and termination of the mask generators."""
import random

import numpy as np
import pytest
import torch

from cae_mm.transforms import BlockMask, RandomMask


@pytest.mark.parametrize('make', [BlockMask, RandomMask])
@pytest.mark.parametrize('count', [-1, 0, 64, 65])
def test_count_out_of_bounds(make, count):
    with pytest.raises(ValueError, match=rf'num_masked={count} of N=64 .*choose 1 to 63'):
        make(8, count)


@pytest.mark.parametrize('make', [BlockMask, RandomMask])
@pytest.mark.parametrize('grid, count', [
    (14, 98), (14, 1), ((8, 8), 32), ((6, 6), 18), ((5, 9), 20), ((3, 12), 12), (14, 190)])
def test_exactly_that_many(make, grid, count):
    random.seed(0)
    np.random.seed(0)
    generator = make(grid, count)
    for _ in range(20):
        mask = generator({})['mask']
        assert mask.dtype == torch.bool and mask.shape == (np.prod(generator.grid),)
        assert mask.sum() == count


def test_block_limits():
    random.seed(0)
    generator = BlockMask(10, 40, min_per_block=1, max_per_block=1)
    assert generator.sample().sum() == 40
    upright = BlockMask(20, 40, aspect=(1.0, 4.0))
    masks = [upright.sample() for _ in range(50)]
    assert sum(m.any(1).sum() for m in masks) > 1.2 * sum(m.any(0).sum() for m in masks)


@pytest.mark.parametrize('grid, count, smallest', [
    ((2, 20), 20, 16), ((4, 4), 15, 16), ((1, 8), 4, 1), ((8, 8), 60, 60)])
def test_endless_search_is_refused(grid, count, smallest):
    random.seed(0)
    with pytest.raises(ValueError, match=f'did not mask exactly {count}: lower min_per'):
        BlockMask(grid, count, min_per_block=smallest).sample()
