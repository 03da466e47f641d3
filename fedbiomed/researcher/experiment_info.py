"""What `Experiment.info` shows."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from fedbiomed.common.constants import EPSILON
from fedbiomed.common.privacy_cost import DEFAULT_DELTA
from fedbiomed.researcher.events.model_trainer import ModelTrainer
from fedbiomed.researcher.history import Point

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


def privacy_text(dp_args: Mapping[str, Any] | None, points: Sequence[Point]) -> str | None:
    """Settings of differential privacy, and what the experiment has spent by node, as the nodes counted it."""
    last = {point.node: point for point in points if point.metric == EPSILON}
    if dp_args is None and not last:
        return None
    delta = (dp_args or {}).get("delta", DEFAULT_DELTA)
    spent = [f"{node}: epsilon {point.value:.4g} after round {point.round}" for node, point in last.items()]
    settings = ", ".join(f"{name} {value}" for name, value in (dp_args or {}).items() if name != "delta") or "off"
    return "\n".join([f"{settings}, delta {delta:g}" if dp_args else settings, *spent])


def _row(name: str, lines: Sequence[str], left: int) -> list[str]:
    return [f"{label:<{left}}  {line}".rstrip() for label, line in zip([name, *[""] * (len(lines) - 1)], lines, strict=True)]


def _lines(value: Any) -> list[str]:
    return [piece for line in str(value).splitlines() for piece in textwrap.wrap(line, _VALUE_WIDTH)] or [""]


def _verdict(missing: Sequence[str]) -> list[str]:
    if not missing:
        return ["", "Experiment can be run now (fully defined)"]
    return ["", "Experiment cannot be run (not fully defined), missing :", *(f"  - {item}" for item in missing)]
