"""Accuracy on the training images alone."""
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / 'benchmarks'))
import cross_validate  # noqa: E402


@pytest.mark.parametrize('measure', [cross_validate.leave_one_out, cross_validate.folded_probe])
def test_no_image_is_its_own_witness(measure):
    """Classes apart are told apart; labels that mean nothing are guessed, however many channels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(20)
    noise = torch.randn(60, 80, generator=generator)
    apart = noise + torch.eye(3).repeat(1, 27)[labels, :80] * 20
    assert measure(apart, labels) > 90
    assert 10 < measure(noise, labels) < 60
