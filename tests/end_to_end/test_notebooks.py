"""The notebooks on using the system run as they stand; those on algorithms have a test of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedbiomed.demo.plans import BreastCancerNetwork
from tests.support.node_cli import here
from tests.support.notebooks import NOTEBOOKS, Hospitals, started

ON_ALGORITHMS = (
    *("scaffold", "fedprox", "declearn-with-pytorch", "declearn-with-sklearn", "adaptive-server-optimizers", "feddc"),
    *("swag-uncertainty", "differential-privacy", "personalised-models", "secure-aggregation"),
)
WITH_APPROVAL = ("101_getting-started", "training-plan-approval")
TEXTS = {
    "101_getting-started": ["rounds done: 10"],
    "breakpoint-save-resume": ["rounds done before: 2 - now run: 2", "equal to the bit: True"],
    "experiment-interface": [
        "run once: 1",
        "run what is left: 2",
        "run, the limit is reached: 0",
        "limit is now 5",
        "the experiment is as it was: 0.0 60 6",
    ],
    "list-datasets-select-nodes": ["rounds done: 3"],
    "tensorboard": [
        "VALIDATION ON GLOBAL UPDATES/MEAN_SQUARE_ERROR last step 4",
        "VALIDATION ON LOCAL UPDATES/MEAN_SQUARE_ERROR last step 3",
        "rounds in the monitor: [1, 2, 3, 4]",
    ],
    "training-plan-approval": ["Pending", "Approved", "Rejected", "+        inputs = "],
    "use-gpu": ["'cpu', 'torch.float32'"],
}


@pytest.fixture(scope="module")
def any_plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    """Hospitals that train whatever comes."""
    yield from started(tmp_path_factory.mktemp("any-plan"), 2, "--no-plan-approval")


@pytest.fixture(scope="module")
def with_approval(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    """Hospitals at which only the plan of the first notebook is approved."""
    out = tmp_path_factory.mktemp("approval")
    for hospitals in started(out, 2):
        plan = BreastCancerNetwork()
        plan.configure_dependencies()
        plan.save_code(str(out / "plan.py"))
        hospitals.federation.register(out / "plan.py", "getting started")
        yield hospitals


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "101_getting-started" else pytest.mark.shown)
        for name in sorted({path.stem for path in NOTEBOOKS.glob("*.ipynb")} - set(ON_ALGORITHMS))
    ],
)
def test_a_notebook_runs_and_shows_something(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    hospitals: Hospitals = request.getfixturevalue("with_approval" if name in WITH_APPROVAL else "any_plan")
    done = hospitals.run(name, tmp_path)
    for text in TEXTS.get(name, ()):
        assert text in done.text
    assert done.pictures + done.tables >= 1
    assert here("experiment", "list", "--dir", tmp_path / "fbm-researcher").returncode == 0
