"""SCAFFOLD where only sums over nodes are known: each node keeps its own control c_i, and tells by how much it changed.

With S the nodes of the sum, N all nodes, W the weights of the nodes (1 each, or their samples):

    dc <- mean of c_i' - c_i     i in S, weighted: what a sum tells
    c  <- c + W_S / W_N * dc     which is the mean of c_i over N

That is algorithm 1 of Karimireddy et al. 2020 (arXiv:1910.06378), lines 12 to 17. Weights by samples are told by their sums only: W_N is
that of the largest sum so far, as if the nodes that were not in it counted like the mean of those that were. A node's must not change.
"""

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedbiomed.common.exceptions import FedbiomedBreakpointError, FedbiomedError
from fedbiomed.common.params import Params, combined
from fedbiomed.common.serializer import Serializer

KEPT, START, ZERO = "kept", "start", "zero"
_FILE = "control_starts_filename"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldControls:
    """What is known here of controls that the nodes keep.

    Args:
        center: c.
        everyone: ids of N.
        holders: nodes that keep a control.
        starts: by node, the control with which one that keeps none begins; zero for those that are not here.
        largest: how many nodes were in the largest sum so far, and their weight.
    """

    center: Params
    everyone: frozenset[str]
    holders: frozenset[str] = frozenset()
    starts: Mapping[str, Params]
    largest: tuple[int, float] = (1, 1.0)

    @property
    def _weight_of_all(self) -> float:
        count, weight = self.largest
        return weight * len(self.everyone) / count

    def lost_by(self, everyone: Collection[str]) -> set[str]:
        """Nodes whose control is in c and cannot be taken out of it, if these are all nodes now."""
        return set((self.holders | self.starts.keys()) - set(everyone))

    def among(self, everyone: Collection[str]) -> "HeldControls":
        """The same with these as all nodes, of which none is lost; the control of a new one is zero."""
        new = replace(self, everyone=frozenset(everyone))
        return replace(new, center=_scaled(self.center, self._weight_of_all / new._weight_of_all))

    def begins(self, node_id: str) -> str:
        """With which control a node begins a round."""
        if node_id in self.holders:
            return KEPT
        return START if node_id in self.starts else ZERO

    def after(self, nodes: Collection[str], weight: float, change: Mapping[str, Any]) -> "HeldControls":
        """What is known after a sum.

        Args:
            nodes: in it.
            weight: of all of them together.
            change: dc.
        """
        largest = (len(nodes), float(weight)) if not self.holders or len(nodes) > self.largest[0] else self.largest
        new = replace(self, largest=largest, holders=self.holders | set(nodes))
        # before the first sum no weights are known, and c is a mean already; later ones may show that the rest weighs more than thought
        kept = self._weight_of_all / new._weight_of_all if self.holders else 1.0
        more, step = (1 - kept) / max(1, len(self.everyone - self.holders)), weight / new._weight_of_all
        center = {
            name: combined([(kept, value), (step, change[name]), *((more, start[name]) for start in self.starts.values() if more)], name)
            for name, value in self.center.items()
        }
        return replace(new, center=center, starts={node: start for node, start in self.starts.items() if node not in new.holders})

    def warmed(self, change: Mapping[str, Any]) -> "HeldControls":
        """After a warm start: c is the mean of the first controls, and those that were not in the sum begin with it."""
        center = {name: combined([(0.0, value), (1.0, change[name])], name) for name, value in self.center.items()}
        return replace(self, center=center, starts=dict.fromkeys(self.everyone - self.holders, center))

    def saved(self, folder: Path) -> dict[str, Any]:
        """What a breakpoint keeps beside c; what nodes begin with goes into a file.

        Args:
            folder: of the breakpoint.
        """
        known = {"everyone": sorted(self.everyone), "holders": sorted(self.holders), "largest": list(self.largest)}
        if not self.starts:
            return known
        path = folder / f"control_starts_{uuid.uuid4()}.mpk"
        values = {id(start): start for start in self.starts.values()}  # after a warm start all are one
        places = {key: place for place, key in enumerate(values)}
        Serializer.dump({"values": list(values.values()), "places": {node: places[id(s)] for node, s in self.starts.items()}}, path)
        return {**known, _FILE: str(path)}


def restored(center: Params, state: Any) -> HeldControls | None:
    """What `saved` told of.

    Args:
        center: c.
        state: as saved; None: nothing.

    Raises:
        FedbiomedBreakpointError: it is something else, or the file cannot be read.
    """
    if state is None:
        return None
    try:
        content = Serializer.load(state[_FILE]) if _FILE in state else {"values": [], "places": {}}
        starts = {str(node): content["values"][place] for node, place in content["places"].items()}
        count, weight = state["largest"]
        names = {key: frozenset(map(str, state[key])) for key in ("everyone", "holders")}
        return HeldControls(center=center, **names, starts=starts, largest=(int(count), float(weight)))
    except (FedbiomedError, OSError, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise FedbiomedBreakpointError(f"what Scaffold knows of the nodes' controls cannot be read: {error}") from error


def held(center: Params, everyone: Collection[str], starts: Mapping[str, Params]) -> HeldControls:
    """Controls before the first sum.

    Args:
        center: c, the mean of what nodes begin with.
        everyone: ids of all nodes.
        starts: see `HeldControls`.
    """
    return HeldControls(center=center, everyone=frozenset(everyone), starts=dict(starts))


def _scaled(params: Params, factor: float) -> Params:
    return params if factor == 1.0 else {name: combined([(factor, value)], name) for name, value in params.items()}
