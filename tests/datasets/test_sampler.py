"""Order, shares of the ranks, and continuing in mid-epoch."""
from itertools import islice

import pytest

from cae_mm.datasets import EndlessSampler, EpochSampler, ReproducibleDataset, sampler


def shares(monkeypatch, size, ranks, **kwargs):
    made = []
    for rank in range(ranks):
        monkeypatch.setattr(sampler, 'get_dist_info', lambda rank=rank: (rank, ranks))
        made.append(EpochSampler(ReproducibleDataset(range(size)), **kwargs))
    return made


@pytest.mark.parametrize('ranks', [1, 2, 3, 5])
def test_ranks_partition_the_dataset(monkeypatch, ranks):
    made = shares(monkeypatch, 30, ranks)
    indices = [list(share) for share in made]
    assert sorted(sum(indices, [])) == list(range(30))
    each = [30 // ranks] * ranks
    assert [len(mine) for mine in indices] == [len(share) for share in made] == each
    # Rank r has every ranks-th of one global order, so that a step sees the same images.
    order = list(shares(monkeypatch, 30, 1)[0])
    assert indices == [order[rank::ranks] for rank in range(ranks)]


@pytest.mark.parametrize('round_up, each', [(False, 2), (True, 3)])
def test_remainder(monkeypatch, round_up, each):
    made = shares(monkeypatch, 11, 4, round_up=round_up)
    indices = [list(share) for share in made]
    assert [len(mine) for mine in indices] == [len(share) for share in made] == [each] * 4
    assert len(set(sum(indices, []))) == (11 if round_up else 8)


def test_more_ranks_than_samples(monkeypatch):
    made = shares(monkeypatch, 2, 5, round_up=True)
    assert [len(list(share)) for share in made] == [1] * 5


def test_epoch_is_in_the_index_and_changes_the_order():
    sampler = EpochSampler(ReproducibleDataset(range(10)))
    first, again = list(sampler), list(sampler)
    sampler.set_epoch(3)
    third = list(sampler)
    assert first == again and sorted(third) == list(range(30, 40))
    assert [index - 30 for index in third] != first
    assert list(EpochSampler(ReproducibleDataset(range(10)), seed=1)) != first
    assert list(EpochSampler(ReproducibleDataset(range(10)), shuffle=False)) == list(range(10))


def test_start_skips_once():
    sampler = EpochSampler(ReproducibleDataset(range(10)))
    whole = list(sampler)
    sampler.set_start(4)
    assert len(sampler) == 10
    assert list(sampler) == whole[4:]
    assert list(sampler) == whole


def test_multiple_of_a_step():
    sampler = EpochSampler(ReproducibleDataset(range(10)))
    whole = list(sampler)
    sampler.set_multiple(4)
    assert len(sampler) == 8 and list(sampler) == whole[:8]
    with pytest.raises(ValueError, match='8 samples do not make a step of 9.*batch_size'):
        sampler.set_multiple(9)


@pytest.mark.parametrize('skipped', [0, 4, 10, 13])
def test_endless_epochs_and_continuing_among_them(skipped):
    data = ReproducibleDataset(range(10))
    endless, epochs = EndlessSampler(data), EpochSampler(data)
    order = []
    for epoch in range(3):
        epochs.set_epoch(epoch)
        order += epochs
    endless.skip(skipped)
    assert list(islice(endless, 30 - skipped)) == order[skipped:]
    assert sorted(order) == list(range(30))


@pytest.mark.parametrize('kind', [EpochSampler, EndlessSampler])
def test_a_dataset_of_one_epoch(kind):
    with pytest.raises(TypeError, match=f'{kind.__name__} counts .* and range has .*ReproducibleDataset'):
        kind(range(10))
