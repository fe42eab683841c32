"""Checkpoints of ours hold plain values, and notice when these are others."""
import argparse
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from cae_mm.checkpoint.files import read_checkpoint
from cae_mm.seal import seal


def test_what_has_a_plain_form_is_written_in_it(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('cae_mm.seal.print_log', lambda text, *_: said.append(text))
    given = dict(
        state_dict=OrderedDict(a=torch.ones(2)), history=HistoryBuffer([1.5, 2.5], [1, 2]), none=None,
        args=argparse.Namespace(out=Path('a/b'), lr=np.float32(0.5)), cfg=ConfigDict(a=[1, (2, 3)]),
        numbers=np.arange(3), names={'x'}, milestones=Counter([3, 3, 5]), kind=torch.float16, own=object())
    torch.save(seal(given), tmp_path / 'x.pth')
    for found in (torch.load(tmp_path / 'x.pth', weights_only=True), read_checkpoint(tmp_path / 'x.pth')):
        history = found.pop('history')
        assert history['log'].tolist() == [1.5, 2.5] and history['count'].dtype == torch.int64
        assert found.pop('state_dict')['a'].tolist() == [1, 1] and found.pop('meta') is not None
        assert type(found['milestones']) is Counter
        assert found == dict(
            none=None, args=dict(out='a/b', lr=0.5), cfg=dict(a=[1, (2, 3)]), numbers=[0, 1, 2],
            names=['x'], milestones={3: 2, 5: 1}, kind=torch.float16, own=None)
    assert said == ['checkpoint/own: a object has no plain form and is not saved']


@pytest.mark.parametrize('sums', [3, dict(tensors={}), dict(rest='0'), dict(tensors=[], rest=1)])
def test_checksums_that_are_none(tmp_path, sums):
    torch.save(dict(state_dict={'a': torch.ones(2)}, meta=dict(checksums=sums)), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='x.pth is refused'):
        read_checkpoint(tmp_path / 'x.pth')
