"""Ranks that share what they find and what goes wrong."""
import pytest
from mmengine.dist import get_rank

from cae_mm.evaluation.ranks import RankError, gather, together


def test_all_know_what_each_brings(on_ranks):
    assert on_ranks(2, lambda: gather(f'of {get_rank()}')) == [['of 0', 'of 1']] * 2
    assert gather(3) == [3]


@pytest.mark.parametrize('failing, message', [
    ([1], 'rank 1: KeyError: 2'), ([0], 'rank 0: KeyError: 2'), ([0, 1], 'rank 0, 1: KeyError: 2')])
@pytest.mark.parametrize('steps', [3, 2])  # the others are still at work, or at the end of the block
def test_an_error_of_one_is_an_error_of_all(on_ranks, failing, message, steps):
    def work():
        with together():
            for step in range(steps + 1):
                gather()
                if step == 2 and get_rank() in failing:
                    raise KeyError(step)

    found = on_ranks(2, work)
    assert [type(error) for error in found] == [RankError, RankError]
    assert [str(error) for error in found] == [message] * 2


def test_the_ranks_meet_as_often_after_an_error(on_ranks):
    """Blocks in blocks: an error that all know of is not told again."""
    def work():
        with pytest.raises(RankError), together(), together():
            assert get_rank() == 1
        return gather(get_rank())

    assert on_ranks(2, work) == [[0, 1], [0, 1]]


def test_a_single_rank_keeps_its_own_error():
    with pytest.raises(KeyError), together():
        raise KeyError(1)
