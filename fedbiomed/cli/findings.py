"""What a doctor found: one line per check, and an exit code."""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass

from fedbiomed.cli.node_output import printable, show_json
from fedbiomed.common.exceptions import FedbiomedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Args:
        check: what.
        ok: whether the node can work with it.
        found: a sentence.
        remedy: what to do when it is not ok, else empty.
    """

    check: str
    ok: bool
    found: str
    remedy: str = ""


def found_by(check: str, look: Callable[[], str], remedies: Mapping[str, str]) -> Finding:
    """Look, and take an error for what was found."""
    try:
        return Finding(check=check, ok=True, found=look())
    except (FedbiomedError, OSError) as error:
        return Finding(check=check, ok=False, found=" ".join(str(error).split()), remedy=remedies[check])


def report(found: Iterable[Finding], *, as_json: bool) -> int:
    """Print all findings; returns 1 when one of them is not ok."""
    findings = list(found)
    if as_json:
        show_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.check:<11} {printable(finding.found)}")
            if finding.remedy:
                print(f"{'':<18}-> {finding.remedy}")
    failed = [finding.check for finding in findings if not finding.ok]
    if failed:
        print(f"fedbiomed: {len(failed)} of {len(findings)} checks failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0
