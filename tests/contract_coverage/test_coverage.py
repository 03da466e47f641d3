"""Every public name is there, has the signature that users rely on, and is used by a test; and the table that says so is up to date."""

import inspect
from pathlib import Path

import pytest

from tests.contract_coverage import coverage
from tests.support.contract_names import PENDING, ContractName, contract_names

NAMES = [name for name in contract_names() if name.label not in PENDING]
WITH_SIGNATURE = [name for name in NAMES if name.signature is not None]


def test_every_name_is_there_and_used_by_a_test() -> None:
    faults = [f"{row.name.label}: defined {row.defined or 'nowhere'}, used by {row.used or 'no test'}" for row in coverage.rows()]
    assert [fault for fault in faults if "nowhere" in fault or "no test" in fault] == []


def test_the_table_is_up_to_date() -> None:
    assert coverage.TABLE.read_text(encoding="utf-8") == coverage.table_text(), (
        "tests/contract_coverage/table.md is out of date: run `python -m tests.contract_coverage.coverage`"
    )


def test_what_is_pending_is_a_name_and_not_there_yet() -> None:
    known = {name.label: name for name in contract_names()}
    assert known.keys() >= PENDING
    come = sorted(label for label in PENDING if coverage.defined_at(known[label]) is not None)
    assert come == [], "these have come: take them out of PENDING in tests/support/contract_names.py"


@pytest.mark.parametrize("name", WITH_SIGNATURE, ids=lambda name: name.label)
def test_a_signature_is_as_promised(name: ContractName) -> None:
    assert signature_fault(name) == ""


def signature_fault(name: ContractName) -> str:
    """What differs: parameters in their order, their defaults, and that nothing further is demanded."""
    target = coverage.found(name)
    target = target.__func__ if isinstance(target, staticmethod | classmethod) else target
    parameters = list(inspect.signature(target.__init__ if inspect.isclass(target) else target).parameters.values())
    parameters = [parameter for parameter in parameters if parameter.name not in ("self", "cls")]
    promised = [part.strip() for part in (name.signature or "").split(",") if part.strip()]
    for text, parameter in zip(promised, parameters, strict=False):
        wanted, _, default = text.lstrip("*").partition("=")
        if parameter.name != wanted:
            return f"{wanted} is called {parameter.name}"
        if default and repr(parameter.default) != default:
            return f"the default of {wanted} is {parameter.default!r}, not {default}"
    if len(parameters) < len(promised):
        return f"it takes {[parameter.name for parameter in parameters]}, not {promised}"
    demanded = [p.name for p in parameters[len(promised) :] if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    return f"it demands {demanded}, too" if demanded else ""


@pytest.mark.parametrize(
    ("signature", "part"),
    [
        ("rounds=1, increase=False", "default of rounds"),
        ("count=None", "is called rounds"),
        ("rounds=None, increase=False, more=1", "it takes"),
        ("rounds=None, increase=False", ""),
    ],
)
def test_the_check_sees_another_signature(signature: str, part: str) -> None:
    fault = signature_fault(ContractName("fedbiomed.researcher.experiment", "Experiment.run", signature))
    assert part in fault
    assert bool(fault) == bool(part)


def test_the_check_sees_a_name_that_is_missing_or_unused(tmp_path: Path) -> None:
    nothing = ContractName("fedbiomed.researcher.experiment", "Experiment.never_there")
    assert coverage.defined_at(nothing) is None
    assert coverage.defined_at(ContractName("fedbiomed.nowhere", "X")) is None
    assert coverage.used_by(nothing, coverage.test_files()) is None
    assert coverage.defined_at(ContractName("fedbiomed.researcher.experiment", "Experiment.run")) is not None
