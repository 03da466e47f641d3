"""What a round of secure aggregation sums: the way from the parameters that were sent to those that a node made of them, in parts.
Auxiliary variables, which go beside, are in `beside.py`.

Floating parameters are of the purpose "weights". Integers and booleans, the counters of a batch normalisation for instance, move by whole
steps and far: they have a vector and a range of their own, of the purpose "metrics", so that a count does not widen the range of the rest.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedbiomed.common.params import as_array, combined
from fedbiomed.common.secagg.errors import round_error
from fedbiomed.common.secagg.layout import Floats, Layout, Way
from fedbiomed.common.secagg.lom_node import Part
from fedbiomed.common.secagg.part_rules import PartRule, rule_of
from fedbiomed.common.secagg.terms import Purpose
from fedbiomed.common.security.framing import Part as Piece
from fedbiomed.common.security.framing import joined

COUNTER_RANGE = float(1 << 20)
_FLOATING = "f"


def layouts_of(params: Mapping[str, Any]) -> dict[Purpose, Layout]:
    """The layout of each purpose that these parameters need.

    Raises:
        FedbiomedSecureAggregationError: there are no parameters.
        AggregationError: one is not an array of numbers.
    """
    if not params:
        raise round_error("there are no parameters to protect")
    return {purpose: Layout.of(part) for purpose, part in _split(params, params).items()}


def digest_of(params: Mapping[str, Any]) -> str:
    """SHA-256 of names, dtypes and shapes, as hex digits: by it both sides know that they speak of the same model."""
    pieces: list[Piece] = []
    for name in sorted(params):
        array = as_array(params[name], name, "the model")
        pieces += [name, str(array.dtype), array.ndim, *array.shape]
    return hashlib.sha256(joined(*pieces)).hexdigest()


def parts_of(made: Mapping[str, Any], sent: Mapping[str, Any], rules: Sequence[PartRule]) -> dict[Purpose, Part]:
    """A node's update in parts.

    Args:
        made: parameters after the training.
        sent: those that came from the researcher; may hold more.
        rules: of these parts, and perhaps of others.

    Raises:
        FedbiomedSecureAggregationError: a parameter was not sent, or has another shape; or a part has no rule.
        AggregationError: one is not an array of numbers.
    """
    ways = {}
    for name, value in made.items():
        new, old = as_array(value, name, "the node"), as_array(sent.get(name), name, "the researcher") if name in sent else None
        if old is None or old.shape != new.shape:
            raise round_error(f"parameter {name!r:.80} of the node was not sent by the researcher in this shape: it cannot be summed")
        ways[name] = Way(new, old)
    return {purpose: ruled(purpose, part, rules) for purpose, part in _split(made, ways).items()}


def ruled(purpose: Purpose, values: Mapping[str, Any], rules: Sequence[PartRule]) -> Part:
    """A part by its rule.

    Args:
        purpose: of the part.
        values: arrays by name.
        rules: of all parts.

    Raises:
        FedbiomedSecureAggregationError: there is no rule for it, or names or shapes are others.
    """
    rule = rule_of(rules, purpose)
    if rule is None or Layout.of(values).digest.hex() != rule.layout:
        raise round_error(f"the part {purpose.value!r} of this node's update has other names or shapes than the researcher asks for")
    return Part(values, rule.clip, rule.weighting)


def moved(sent: Mapping[str, Any], ways: Mapping[str, Floats]) -> dict[str, Any]:
    """The parameters that were sent, each moved by the mean of the nodes' ways; of the kind of those that were sent."""
    return {name: combined([(1.0, sent[name]), (1.0, way)], name) for name, way in ways.items()}


def without_rounding(ways: Mapping[str, Floats], bits: int) -> dict[str, Floats]:
    """Means of the ways of counters, of which those that are a whole number but for the rounding to steps are that number.

    A model cuts off what stands behind the point, so a counter that went by 1.9998 would otherwise lose a step.

    Args:
        ways: by name, of the purpose "metrics".
        bits: of a value.
    """
    error = 2 * COUNTER_RANGE / ((1 << bits) - 1)
    whole = {name: np.rint(way) for name, way in ways.items()}
    return {name: np.where(np.abs(way - whole[name]) <= error, whole[name], way) for name, way in ways.items()}


def _split(kinds: Mapping[str, Any], values: Mapping[str, Any]) -> dict[Purpose, dict[str, Any]]:
    found: dict[Purpose, dict[str, Any]] = {}
    for name, value in values.items():
        kind = as_array(kinds[name], name, "the model").dtype.kind
        found.setdefault(Purpose.WEIGHTS if kind in _FLOATING else Purpose.METRICS, {})[name] = value
    return found
