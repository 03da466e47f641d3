"""Writes `docs/algorithms.md` from the docstrings of the aggregators: `python docs/hooks/algorithms.py`. A test tells when it is due."""

import importlib
import inspect
import re
from pathlib import Path

from fedbiomed.common.plugins import member_names
from fedbiomed.researcher import aggregators
from fedbiomed.researcher.aggregators import Aggregator

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "algorithms.md"
_PAPER = re.compile(r"\(([A-Z][\w-]+ et al\. \d{4}[^()]*)\)")
_EXCHANGE = re.compile(r"Exchanged: (.+?)\. Stays on the nodes: (.+?)\.(?: |$)")
_TESTS = ("test_aggregators", "test_server_optimizers", "test_robust_aggregators", "test_scaffold", "test_personal")
_HEAD = """# Algorithms

Aggregators of `fedbiomed.researcher.aggregators`, for `Experiment(aggregator=...)`; options with their defaults. The training argument
`fedprox_mu` adds the term of FedProx to any other of them. Tests lie in `tests/researcher/`; `test_aggregator_family.py` and
`test_aggregator_rounds.py` hold for all. This page is made from the docstrings by `docs/hooks/algorithms.py`.

| name | what it does | paper | exchanged | stays on the nodes | options | tests |
|---|---|---|---|---|---|---|
"""


def page() -> str:
    """The text of the page."""
    return _HEAD + "".join(_row(found) for found in sorted(_classes(), key=lambda c: c.__name__.lower()))


def _classes() -> set[type[Aggregator]]:
    modules = [importlib.import_module(f"{aggregators.__name__}.{name}") for name in member_names(aggregators)]
    found = {c for module in modules for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__}
    return {c for c in found if issubclass(c, Aggregator) and not inspect.isabstract(c)}


def _row(found: type[Aggregator]) -> str:
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
    cells = [f"`{found.__name__}`", what, paper[1], exchange[1], exchange[2], _options(found), _tests(found)]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _options(found: type[Aggregator]) -> str:
    options = inspect.signature(found).parameters.values()
    return ", ".join(f"`{option.name}={option.default!r}`" for option in options) or "none"


def _tests(found: type[Aggregator]) -> str:
    """The files on aggregators that name the class; a suite of the family, `test_aggregator_family.py`, holds for all."""
    named = re.compile(rf"\b{found.__name__}\b")
    files = [path for path in sorted((ROOT / "tests" / "researcher").glob("test_*.py")) if path.name.startswith(_TESTS)]
    return ", ".join(f"`{path.name}`" for path in files if named.search(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
