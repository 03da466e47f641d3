"""The notebooks on algorithms run as they stand, and show what they say."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.notebooks import Hospitals, started

pytestmark = pytest.mark.shown


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    """Three, of which none has seen more than five of the ten digits."""
    yield from started(tmp_path_factory.mktemp("algorithms"), 3, "--no-plan-approval")


def last_row(texts: list[str], column: str) -> list[float]:
    """Numbers of the first printed table of one row that has such a column, without the row's own name."""
    table = next(text for text in texts if column in text and len(text.splitlines()) == 2)
    return [float(number) for number in re.findall(r"\d+\.\d+", table.splitlines()[1])]


def test_scaffold(hospitals: Hospitals, tmp_path: Path) -> None:
    done = hospitals.run("scaffold", tmp_path)
    averaged, corrected = last_row(done.texts, "Scaffold")
    assert corrected > averaged
    assert "rounds done: 9" in done.text
    assert done.pictures == 2


def test_fedprox(hospitals: Hospitals, tmp_path: Path) -> None:
    done = hospitals.run("fedprox", tmp_path)
    drifts = last_row(done.texts, "mu 0.3")
    assert drifts == sorted(drifts, reverse=True)
    assert done.pictures == 2


def test_adaptive_server_optimizers(hospitals: Hospitals, tmp_path: Path) -> None:
    done = hospitals.run("adaptive-server-optimizers", tmp_path)
    averaged, with_momentum, adaptive = last_row(done.texts, "FedAdam")
    assert min(with_momentum, adaptive) > averaged + 0.02
    assert "rounds done: 10 - equal to the bit: True" in done.text
    assert done.pictures == 2


def test_declearn_with_pytorch(hospitals: Hospitals, tmp_path: Path) -> None:
    done = hospitals.run("declearn-with-pytorch", tmp_path)
    assert re.search(r"right, kept against anew: \+0\.\d+", done.text)
    assert done.pictures == 1


def test_declearn_with_sklearn(hospitals: Hospitals, tmp_path: Path) -> None:
    done = hospitals.run("declearn-with-sklearn", tmp_path)
    assert re.search(r"log loss, Adam against scikit-learn's own: -0\.\d+", done.text)
    assert done.pictures == 1


def test_feddc(hospitals: Hospitals, tmp_path: Path) -> None:
    done = hospitals.run("feddc", tmp_path)
    assert re.search(r"right, FedDC against averaging alone: \+0\.\d+", done.text)
    assert "completed" in done.text
    assert done.pictures == 1


def test_swag_uncertainty(hospitals: Hospitals, tmp_path: Path) -> None:
    done = hospitals.run("swag-uncertainty", tmp_path)
    before, after = map(float, re.search(r"calibration error before (\S+) after (\S+)", done.text).groups())
    assert after < before - 0.02
    right, wrong = map(float, re.search(r"mutual information, right (\S+) wrong (\S+)", done.text).groups())
    assert wrong > 1.2 * right > 0
    assert "SWAGRoundFinished" in done.text
    assert "moments of 3 hospitals, by (80, 80, 80) samples" in done.text
    assert done.pictures == 2


@pytest.mark.slow  # seven experiments; tests/node/test_privacy_rounds.py is its short form
def test_differential_privacy(hospitals: Hospitals, tmp_path: Path) -> None:
    done = hospitals.run("differential-privacy", tmp_path)
    without, least = map(float, re.findall(r"without privacy: ([\d.]+) - with the least noise: ([\d.]+)", done.text)[0])
    assert without - 0.1 < least
    assert "epsilon_budget of dp_args" in done.text
    assert "rounds done: 3" in done.text
    assert done.pictures == 1


def test_personalised_models(hospitals: Hospitals, tmp_path: Path) -> None:
    done = hospitals.run("personalised-models", tmp_path)
    private, personal = map(float, re.search(r"right, against FedAverage: FedPer (\S+) Ditto (\S+)", done.text).groups())
    assert min(private, personal) > 0.02
    assert "['body.0.bias', 'body.0.weight']" in done.text
    assert (done.tables, done.pictures) == (1, 1)


def test_secure_aggregation(hospitals: Hospitals, tmp_path: Path) -> None:
    done = hospitals.run("secure-aggregation", tmp_path)
    assert "before the first round: True (None, None)" in done.text
    assert done.text.count("650 numbers") == 3
    assert done.text.count("hidden") == 3
    assert "below a millionth: True" in done.text
    assert "sites needed to open a sum: 2 of 3" in done.text
    assert "Median needs the update of each single node" in done.text
    assert "rounds, openly: 1" in done.text
    assert done.pictures == 1
