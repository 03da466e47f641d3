"""By what rules each part of an update is summed: the order tells them, and every node holds to them or refuses."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedbiomed.common.secagg.errors import round_error
from fedbiomed.common.secagg.quantise import checked_clip
from fedbiomed.common.secagg.terms import Purpose, Weighting

_DIGEST = re.compile(r"[0-9a-f]{64}")
_KEYS = ("purpose", "clip", "weighting", "layout")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRule:
    """How one vector of a round is made; the vectors of all purposes open together.

    Args:
        purpose: what the vector holds.
        clip: values are cut to plus and minus this.
        weighting: by what nodes count in the sum.
        layout: digest of names and shapes, see `Layout.digest`, as hex digits.
    """

    purpose: Purpose
    clip: float
    weighting: Weighting
    layout: str

    def as_dict(self) -> dict[str, Any]:
        """For the order, JSON."""
        return {"purpose": self.purpose.value, "clip": self.clip, "weighting": self.weighting.value, "layout": self.layout}

    @property
    def told(self) -> str:
        """As text: what all nodes must have been told alike."""
        return repr((self.purpose.value, self.clip, self.weighting.value, self.layout))


def rules_of(given: Any) -> tuple[PartRule, ...]:
    """What `PartRule.as_dict` gave, one for each part.

    Raises:
        FedbiomedSecureAggregationError: it is not of that form, or a purpose is there twice.
    """
    rules = tuple(_rule(part) for part in given) if isinstance(given, list | tuple) else None
    if rules is None or len({rule.purpose for rule in rules}) < len(rules):
        raise round_error(f"an order tells one rule for each part of an update, not {given!r:.120}")
    return rules


def rule_of(rules: Sequence[PartRule], purpose: Purpose) -> PartRule | None:
    """The rule of a purpose, None where there is no such part."""
    return next((rule for rule in rules if rule.purpose is purpose), None)


def _rule(given: Any) -> PartRule:
    if not isinstance(given, Mapping) or set(given) != set(_KEYS):
        raise round_error(f"the rule of a part tells {', '.join(_KEYS)}, not {given!r:.120}")
    purpose, clip, weighting, layout = (given[key] for key in _KEYS)
    if purpose not in tuple(Purpose) or weighting not in tuple(Weighting) or not isinstance(layout, str) or not _DIGEST.fullmatch(layout):
        raise round_error(f"the rule of a part is malformed: {dict(given)!r:.200}")
    return PartRule(purpose=Purpose(purpose), clip=checked_clip(clip), weighting=Weighting(weighting), layout=layout)
