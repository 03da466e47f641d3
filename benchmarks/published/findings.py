"""What an experiment found, beside what was published."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One judged number.

    Args:
        name: what was measured.
        found: here.
        low, high: between which it must lie, ends included; None: no limit on that side.
        published: the figure of the paper or of its repository; None where only an order of methods was published.
    """

    name: str
    found: float
    low: float | None = None
    high: float | None = None
    published: float | None = None

    @property
    def within(self) -> bool:
        """Whether it lies in its band; NaN does not."""
        return (self.low is None or self.found >= self.low) and (self.high is None or self.found <= self.high) and self.found == self.found

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "within": self.within}


def near(name: str, found: float, published: float, width: float) -> Finding:
    """A number that must lie within a width of the published one."""
    return Finding(name=name, found=found, low=published - width, high=published + width, published=published)


def table(title: str, findings: Sequence[Finding]) -> str:
    """Lines for people."""
    lines = [title, f"  {'':44}{'found':>10}{'published':>11}{'band':>20}"]
    for finding in findings:
        ends = " .. ".join("" if end is None else f"{end:.4g}" for end in (finding.low, finding.high))
        published = "" if finding.published is None else f"{finding.published:.4g}"
        verdict = "ok" if finding.within else "OUTSIDE"
        lines.append(f"  {finding.name:44}{finding.found:10.4g}{published:>11}{ends:>20}  {verdict}")
    return "\n".join(lines)
