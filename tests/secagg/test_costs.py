"""What secure aggregation takes of memory, whatever the number of nodes; by the benchmark's own measures."""

import pytest

from benchmarks.secagg import joye_libert_cost, measure


def test_a_round_takes_the_memory_of_four_models_at_most() -> None:
    found = measure(6, 300_000)
    # the update and a vector of 64 bits; the sum and one upload; and blocks of 384 KiB, a third of this model
    assert found["protect_peak_with_update"] < 3.5
    assert found["protect_peak_with_update"] == pytest.approx(1 + found["protect_peak_models"])
    assert found["open_peak_models"] < 4.1
    assert set(found) >= {"params", "protect_ms", "add_ms", "open_ms", "chacha20_ms", "memcpy_ms"}


def test_the_cost_of_the_other_scheme_is_told_beside() -> None:
    assert joye_libert_cost(3)["modulus_bits"] == 2048
