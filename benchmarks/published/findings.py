"""What an experiment found, beside what was published."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One judged number.

    Args:
        name: what was measured.
        found: here.
        low, high: between which it must lie, ends included; None: no limit on that side.
        published: the figure of the paper or of its repository; None where only an order of methods was published.
        is_own_band: whether the band is ours, where neither a band nor an order was published.
    """

    name: str
    found: float
    low: float | None = None
    high: float | None = None
    published: float | None = None
    is_own_band: bool = False

    @property
    def within(self) -> bool:
        """Whether it lies in its band; NaN does not."""
        return (self.low is None or self.found >= self.low) and (self.high is None or self.found <= self.high) and self.found == self.found

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "within": self.within}


def near(name: str, found: float, published: float, width: float, *, is_own_band: bool = False) -> Finding:
    """A number that must lie within a width of the published one."""
    return Finding(name=name, found=found, low=published - width, high=published + width, published=published, is_own_band=is_own_band)


def largest_gap(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The largest difference between two sets of parameters."""
    return max(float(np.abs(np.asarray(one[name], np.float64) - np.asarray(other[name], np.float64)).max()) for name in one)


def table(title: str, findings: Sequence[Finding], form: str = "") -> str:
    """Lines for people; `form` says below them what was run, and what of it is shorter than published."""
    lines = [title, f"  {'':56}{'found':>10}{'published':>11}{'band':>20}"]
    for finding in findings:
        ends = " .. ".join("" if end is None else f"{end:.4g}" for end in (finding.low, finding.high))
        published = "" if finding.published is None else f"{finding.published:.4g}"
        verdict = "ok" if finding.within else "OUTSIDE"
        whose = " (own band)" if finding.is_own_band else ""
        lines.append(f"  {finding.name:56}{finding.found:10.4g}{published:>11}{ends:>20}  {verdict}{whose}")
    below = textwrap.wrap(f"form: {form}", width=110, initial_indent="  ", subsequent_indent="    ") if form else []
    return "\n".join([*lines, *below])
