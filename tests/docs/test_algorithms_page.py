"""The table of algorithms is what the docstrings say."""

import importlib.util
from pathlib import Path

import pytest

from fedbiomed.researcher.aggregators import FedAverage
from tests.support.aggregators import family
from tests.support.trainers import family as trainers

HOOK = Path(__file__).resolve().parents[2] / "docs" / "hooks" / "algorithms.py"


@pytest.fixture(scope="module")
def hook():
    spec = importlib.util.spec_from_file_location("algorithms_page", HOOK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_up_to_date(hook):
    assert hook.PAGE.read_text(encoding="utf-8") == hook.page(), "run: python docs/hooks/algorithms.py"


def test_every_class_of_a_family_has_a_line_with_all_cells(hook):
    lines = [line for line in hook.page().splitlines() if line.startswith("| `")]
    cells = {line.split("|")[1].strip(" `"): [cell.strip() for cell in line.split("|")[1:-1]] for line in lines}
    others = {"DefaultStrategy", "CyclicOrder", "ModelMergeStrategy", "SWAG", "DeepEnsemble", "MCDropout"}
    assert cells.keys() == {found.__name__ for found in family() | trainers()} | others
    assert [(name, row) for name, row in cells.items() if len(row) != 7 or not all(row)] == []
    assert "`eta=0.1`, `beta_1=0.9`" in cells["FedAdam"][5]
    assert cells["FedAdam"][2] == "Reddi et al. 2021, arXiv:2003.00295"
    assert cells["MCDropout"][2] == "Gal and Ghahramani 2016, arXiv:1506.02142"
    assert cells["MCDropout"][5].startswith("`model`, `passes=10`")
    assert "`researcher/test_optimizer_travel.py`" in cells["DaisyChainTrainer"][6]


def test_a_docstring_without_its_paper_is_an_error(hook):
    class Nameless(FedAverage):
        """The mean. Exchanged: parameters. Stays on the nodes: data."""

    with pytest.raises(ValueError, match="docstring of Nameless must hold its paper"):
        hook._row(Nameless)
