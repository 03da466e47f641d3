"""Writes `docs/algorithms.md` from docstrings: `python docs/hooks/algorithms.py`. A test tells when it is due."""

import importlib
import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from fedbiomed.common import uncertainty
from fedbiomed.common.plugins import member_names
from fedbiomed.researcher import aggregators, events, strategies
from fedbiomed.researcher.aggregators import Aggregator
from fedbiomed.researcher.events import ModelTrainer
from fedbiomed.researcher.strategies import Strategy

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "algorithms.md"
_PAPER = re.compile(r"\(([A-Z][\w-]+ (?:et al\.|and [A-Z][\w-]+) \d{4}[^()]*)\)")
_EXCHANGE = re.compile(r"Exchanged: (.+?)\. Stays on the nodes: (.+?)\.(?: |$)")
_HEAD = """# Algorithms

Options are given with their defaults. This page is made from the docstrings by `docs/hooks/algorithms.py`.
"""
_COLUMNS = """
| name | what it does | paper | exchanged | stays on the nodes | options | tests |
|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Family:
    """A section of the page.

    Args:
        title, text: above its table.
        folder: the package that holds the family.
        base: of its classes; None: whatever can predict.
        tests: names of test files of which those are listed that name the class.
    """

    title: str
    text: str
    folder: ModuleType
    base: type | None
    tests: tuple[str, ...]

    def classes(self) -> list[type]:
        """The classes that the files of the family define, by name."""
        modules = [importlib.import_module(f"{self.folder.__name__}.{name}") for name in member_names(self.folder)]
        found = {c for module in modules for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__}
        return sorted((c for c in found if self._has(c)), key=lambda c: c.__name__.lower())

    def _has(self, found: type) -> bool:
        return not inspect.isabstract(found) and (hasattr(found, "predict") if self.base is None else issubclass(found, self.base))


FAMILIES = (
    Family(
        "Aggregators",
        "Of `fedbiomed.researcher.aggregators`, for `Experiment(aggregator=...)`. The training argument `fedprox_mu` adds the term\n"
        "of FedProx to any other of them. `test_aggregator_family.py` and `test_aggregator_rounds.py` hold for all.",
        aggregators,
        Aggregator,
        (
            "test_aggregators",
            "test_client_level_dp",
            "test_layer",
            "test_personal_aggregators",
            "test_private_layers",
            "test_robust_aggregators",
            "test_scaffold",
            "test_server_optimizers",
        ),
    ),
    Family(
        "Trainers",
        "Of `fedbiomed.researcher.events`, for `Experiment(trainer=...)`. `test_trainer_family.py` holds for all.",
        events,
        ModelTrainer,
        ("test_trainer_", "test_swag_", "test_cyclic_", "test_daisy_", "test_optimizer_travel", "test_model_merge", "test_checkpointing_"),
    ),
    Family(
        "Strategies",
        "Of `fedbiomed.researcher.strategies`, for `Experiment(node_selection_strategy=...)`; a `ModelMergeStrategy`\n"
        "also for `merge_models`.",
        strategies,
        Strategy,
        ("test_strategies", "test_cyclic_", "test_model_merge", "test_trainer_events"),
    ),
    Family(
        "Uncertainty",
        "Of `fedbiomed.common.uncertainty`, for models that are there, see [How sure a model is](uncertainty.md).",
        uncertainty,
        None,
        ("test_predictive", "test_swag_"),
    ),
)


def page() -> str:
    """The text of the page."""
    return _HEAD + "".join(_section(family) for family in FAMILIES)


def _section(family: Family) -> str:
    return f"\n## {family.title}\n\n{family.text}\n{_COLUMNS}" + "".join(_row(found, family.tests) for found in family.classes())


def _row(found: type, tests: Iterable[str] = ()) -> str:
    """A line of the table.

    Raises:
        ValueError: the docstring lacks the paper, or does not say what is exchanged.
    """
    text = " ".join((inspect.getdoc(found) or "").partition("Args:")[0].split())
    paper, exchange = _PAPER.search(text), _EXCHANGE.search(text)
    if paper is None or exchange is None:
        raise ValueError(
            f"the docstring of {found.__name__} must hold its paper, `(Author et al. 2020, arXiv:...)`, and the sentences "
            "`Exchanged: ... . Stays on the nodes: ... .`"
        )
    what = text[: paper.start()].strip()
    cells = [f"`{found.__name__}`", what, paper[1], exchange[1], exchange[2], _options(found), _files(found, tuple(tests))]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _options(found: type) -> str:
    options = inspect.signature(found).parameters.values()
    return ", ".join(f"`{o.name}`" if o.default is o.empty else f"`{o.name}={o.default!r}`" for o in options) or "none"


def _files(found: type, tests: tuple[str, ...]) -> str:
    """The test files of a family that name the class."""
    named = re.compile(rf"\b{found.__name__}\b")
    files = [path for path in sorted((ROOT / "tests").glob("*/test_*.py")) if path.name.startswith(tests)]
    return ", ".join(f"`{path.relative_to(ROOT / 'tests')}`" for path in files if named.search(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
