"""What `Experiment.info` shows."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from fedbiomed.researcher.events.model_trainer import ModelTrainer

_VALUE_WIDTH = 90


def info_text(rows: Mapping[str, Any], missing: Sequence[str]) -> str:
    """A table of two columns, and below it whether the experiment can be run.

    Args:
        rows: settings by name.
        missing: what is not defined yet.
    """
    cells = {name: _lines(value) for name, value in rows.items()}
    left = max(len(name) for name in rows)
    width = max(len(line) for lines in cells.values() for line in lines)
    rule = f"{'-' * left}  {'-' * width}"
    table = [line for name, lines in cells.items() for line in _row(name, lines, left)]
    return "\n".join([rule, *table, rule, *_verdict(missing)])


def trainer_text(trainer: ModelTrainer) -> str:
    """Kind and state of a trainer, what follows, and the last that happened."""
    training = trainer.training
    lines = [f"{type(trainer).__name__}: {training.state}, next: {training.step}"]
    for last in training.transitions[-1:]:
        lines.append(f"last, after {last.round} rounds: {last.event}{': ' if last.note else ''}{last.note}")
    return "\n".join(lines)


def _row(name: str, lines: Sequence[str], left: int) -> list[str]:
    return [f"{label:<{left}}  {line}".rstrip() for label, line in zip([name, *[""] * (len(lines) - 1)], lines, strict=True)]


def _lines(value: Any) -> list[str]:
    return [piece for line in str(value).splitlines() for piece in textwrap.wrap(line, _VALUE_WIDTH)] or [""]


def _verdict(missing: Sequence[str]) -> list[str]:
    if not missing:
        return ["", "Experiment can be run now (fully defined)"]
    return ["", "Experiment cannot be run (not fully defined), missing :", *(f"  - {item}" for item in missing)]
