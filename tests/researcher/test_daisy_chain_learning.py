"""Daisy-chaining against averaging alone on the numerical example of the paper of FedDC (arXiv:2110.03469)."""

import pytest

from benchmarks.published.feddc import accuracy, example
from fedbiomed.researcher.events import DaisyChainTrainer

pytestmark = pytest.mark.shown


def test_daisy_chaining_learns_more_from_small_data_than_averaging_alone():
    data = example()
    chained = accuracy(DaisyChainTrainer(1, 200, seed=1), data, seed=1)
    averaged = accuracy(DaisyChainTrainer(0, 200, seed=1), data, seed=1)
    assert chained > 0.85
    assert chained > averaged + 0.04
