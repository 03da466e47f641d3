"""Daisy-chaining against averaging alone on the numerical example of the paper of FedDC (arXiv:2110.03469)."""

import pytest

from benchmarks.published.feddc import accuracy, example, stacked
from fedbiomed.researcher.events import DaisyChainTrainer

pytestmark = pytest.mark.shown


def test_daisy_chaining_learns_more_from_small_data_than_averaging_alone():
    shares, test = example()
    chained = accuracy(stacked(DaisyChainTrainer(1, 200, seed=1), shares, seed=1)[999], test)
    averaged = accuracy(stacked(DaisyChainTrainer(0, 200, seed=1), shares, seed=1)[999], test)
    assert chained > 0.85
    assert chained > averaged + 0.04
