"""SCAFFOLD, Karimireddy et al. 2020 (arXiv:1910.06378), option II. The nodes' half is `common/training_plans/corrections/scaffold.py`.

With x the parameters that were sent, y_i those that node i made of them in K steps of rate lr_i, S the nodes of the round, N all nodes:

    c_i     <- delta_i + (x - y_i) / (lr_i K)      i in S; the others keep theirs
    c       <- mean of c_i                         i in N
    delta_i <- c_i - c                             i in N
    x       <- x - server_lr / |S| * sum(x - y_i)  i in S

c_i is the node's mean gradient, for a node steps by lr_i (g - delta_i). The researcher holds all controls, so the nodes need no state.
With a warm start the first round is a pass for the gradients alone: it makes c_i, and x stays. Where only sums over nodes are known, with
secure aggregation, nodes keep their controls: `_scaffold_sums.py`.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedbiomed.common.constants import TrainingPlans
from fedbiomed.common.exceptions import AggregationError, FedbiomedAggregatorError, FedbiomedBreakpointError
from fedbiomed.common.params import Params, RunningMean, checked_arrays, combined
from fedbiomed.common.secagg.beside import SENT, named, nested
from fedbiomed.common.secagg.terms import Weighting
from fedbiomed.researcher.aggregators import _scaffold_state as scaffold_state
from fedbiomed.researcher.aggregators._scaffold_checks import check_plan, checked_rates, checked_server_lr, checked_updates, parameter_names
from fedbiomed.researcher.aggregators._scaffold_sums import HeldControls, held, restored
from fedbiomed.researcher.aggregators._sums import SumTerms
from fedbiomed.researcher.aggregators.aggregator import Aggregator

logger = logging.getLogger(__name__)

ByNode = dict[str, Params]
_CORRECTION = "aggregator_correction"
_CENTER, _START = "shared_control", "own_control"
_HALF, _CHANGE = "scaffold", "control"


class Scaffold(Aggregator):
    """Averages the nodes' steps, and corrects each node's gradients by how far its data lead away from the others'
    (Karimireddy et al. 2020, arXiv:1910.06378, option II).

    Exchanged: parameters, learning rates, and to each node its correction, of the size of the model. Stays on the nodes: data. With secure
    aggregation the nodes keep their controls, get c, and what is known here is the sum of their changes; a change of nodes that leaves one
    out begins all controls at zero.

    Needs a torch plan with a torch optimizer (the paper's is plain gradient descent) and the training argument `num_updates`. What is no
    trainable parameter, as the running statistics of a batch normalisation, is averaged and not corrected.

    Args:
        server_lr: step of the researcher; 1 takes the mean of the nodes' parameters.
        fds: the data set, whose nodes are all the nodes; an experiment tells it by `set_fds`.
        weighted: let nodes count by their samples, in the mean of their parameters and in that of the controls (a node that has not taken
            part yet counts there like the mean of those that have); by default all count alike, as in the paper.
        warm_start: begin with the nodes' mean gradients as controls instead of zero. The first round then only makes them, and leaves the
            parameters as they were; a node that has no part in it begins with c as its control, so with no correction.

    Attributes:
        global_state: c, by the name of the parameter.
        nodes_states: c_i by node; none where nodes keep them.
        nodes_deltas: delta_i by node; none where nodes keep c_i.
        nodes_lr: learning rate by node and parameter, as last replied.

    Raises:
        FedbiomedAggregatorError: `server_lr` is 0 or not a number.
    """

    takes_sums = True

    def __init__(self, server_lr: float = 1.0, fds: Any = None, *, weighted: bool = False, warm_start: bool = False) -> None:
        super().__init__(aggregator_name="Scaffold")
        self.server_lr = checked_server_lr(server_lr)
        self.weighted, self.warm_start = bool(weighted), bool(warm_start)
        self._is_warm = False
        self.global_state: Params = {}
        self.nodes_states: ByNode = {}
        self.nodes_deltas: ByNode = {}
        self.nodes_lr: dict[str, dict[str, float]] = {}
        self._nodes_weights: dict[str, float] = {}
        self._names: frozenset[str] | None = None
        self._n_updates: int | None = None
        self._sent: Params = {}
        self._warned_of = ""
        self._aux_range: float | None = None
        self._held: HeldControls | None = None
        self.set_fds(fds)
        self.begin(0)

    def check_values(self, n_updates: int | None = None, training_plan: Any = None, *args: Any, **kwargs: Any) -> bool:
        """See `Aggregator`; takes note of both.

        Args:
            n_updates: K, steps of each node in a round.
            training_plan: the researcher's, built.

        Raises:
            FedbiomedAggregatorError: `n_updates` is not an integer above 0, the plan is not on torch, or has another kind of optimizer.
        """
        self._n_updates = checked_updates(n_updates)
        if self._training_plan_type not in (None, TrainingPlans.TorchTrainingPlan):
            raise FedbiomedAggregatorError(f"FB401: Scaffold works with torch plans only, this one is a {self._training_plan_type}")
        if training_plan is not None:
            warning = check_plan(training_plan)
            if warning and warning != self._warned_of:
                logger.warning(warning)
            self._warned_of = warning
            self._names = parameter_names(training_plan)
        return True

    def create_aggregator_args(
        self, global_model: Mapping[str, Any], node_ids: Sequence[str]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """See `Aggregator`; the large argument of a node is its correction, `aggregator_correction`."""
        small, _ = super().create_aggregator_args(global_model, node_ids)
        if self._aux_range is not None:
            self._prepare_sums(global_model, node_ids)
            return self._args_for_sums(small, self._aux_range)
        self._prepare(global_model, node_ids)
        return small, {node_id: {_CORRECTION: dict(self.nodes_deltas[node_id])} for node_id in node_ids}

    def begin(self, round: int) -> None:
        """Forget what was added in an earlier round, finished or not; controls stay."""
        self._mean = RunningMean()
        self._made: ByNode = {}
        self._added: dict[str, float] = {}
        self._change: Mapping[str, Any] = {}
        self._summed: tuple[Sequence[str], float] = (), 0.0

    def expect_sums(self, aux_range: float | None) -> None:
        """See `Aggregator`; controls that the nodes keep are not known here, so a round without sums begins with new ones."""
        self._aux_range = aux_range
        if aux_range is None and self._held is not None:
            logger.warning("the nodes keep their controls of Scaffold to themselves: without secure aggregation all begin at zero again")
            self._forget_controls()

    def sum_terms(self, training_plan: Any) -> SumTerms:
        """See `Aggregator`; beside the parameters go the changes of the nodes' controls."""
        params = training_plan.get_model_params()
        names = parameter_names(training_plan) if training_plan.type() is TrainingPlans.TorchTrainingPlan else ()
        beside = {named(SENT, _HALF, _CHANGE, name): tuple(params[name].shape) for name in names if name in params}
        return SumTerms(weighting=Weighting.SAMPLES if self.weighted else Weighting.NODES, beside=beside)

    def hear_sum(self, nodes: Sequence[str], weight: float, beside: Mapping[str, Any]) -> None:
        """See `Aggregator`; takes note of by how much the nodes' controls changed."""
        self._summed, self._change = (nodes, weight), nested(beside, SENT)[_HALF][_CHANGE]

    def hear(self, node_id: str, reply: Mapping[str, Any]) -> None:
        """Take the learning rates out of a reply: `optimizer_args["lr"]`, by parameter or one for all.

        Raises:
            AggregationError: there are none, or they are not numbers of 0 or more.
        """
        names = self.nodes_deltas.get(node_id, {})
        self.nodes_lr = {**self.nodes_lr, node_id: checked_rates(node_id, reply.get("optimizer_args"), names)}

    def add(self, node_id: str, params: Mapping[str, Any], weight: float) -> None:
        """Fold one node's update into the mean, and work out its new control.

        Raises:
            AggregationError: the node was added before, its learning rates were not heard, its names or shapes are not those of the
                model that was sent, a value is not finite.
        """
        if node_id in self._added:
            raise AggregationError(f"the update of {node_id} came twice in one round")
        if not (math.isfinite(weight) and weight >= 0):
            raise AggregationError(f"the weight of {node_id} must be a number of 0 or more, not {weight!r}")
        if self._sent:
            shapes = {name: tuple(value.shape) for name, value in self._sent.items()}
            checked_arrays(params, node_id, shapes, "the model that was sent", with_values=False)
        counts = weight > 0
        made = {node_id: self._control(node_id, params)} if counts and self._aux_range is None else {}
        self._mean.add(params, 1.0 if counts and not self.weighted else weight, source=node_id)
        self._added = {**self._added, node_id: weight}
        self._made = {**self._made, **made}

    def finish(self) -> Params:
        """The next parameters; the controls are renewed.

        Raises:
            AggregationError: nothing was added, or all weights are 0.
        """
        mean, step = self._mean.mean(), self.server_lr
        params = {
            name: combined([(1 - step, self._sent[name]), (step, value)], name) if self._is_parameter(name) else value
            for name, value in mean.items()
        }
        if self._aux_range is not None:
            return self._finished_sums(params)
        self._nodes_weights = {**self._nodes_weights, **{node_id: self._added[node_id] for node_id in self._made}}
        if self.warm_start and not self._is_warm:
            params = {name: combined([(1.0, value)], name) for name, value in self._sent.items()}
            self._made, self._is_warm = self._warmed(), True
        self._settle({**self.nodes_states, **self._made})
        self.begin(0)
        return params

    def aggregate(  # noqa: PLR0917  the public signature
        self,
        model_params: Mapping[str, Mapping[str, Any]],
        weights: Mapping[str, float],
        global_model: Mapping[str, Any] | None = None,
        training_plan: Any = None,
        training_replies: Any = None,
        n_updates: int | None = None,
        n_round: int | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Params:
        """The next parameters from all updates at once; the controls are renewed.

        Args:
            model_params: parameters by node.
            weights: by node; without `weighted` a node counts alike whatever it is, or not at all if it is 0.
            global_model: x; None: as given to `create_aggregator_args`.
            training_plan: the researcher's; None: as given to `check_values`.
            training_replies: of the round, or by round, from which learning rates are read; None: as heard before.
            n_updates: K; None: as given to `check_values`.
            n_round: which of the replies; the last ones by default.

        Raises:
            AggregationError: the nodes differ, something of this was not told yet, or the updates do not fit together.
        """
        if model_params.keys() != weights.keys():
            raise AggregationError(f"updates of {sorted(model_params)}, but weights of {sorted(weights)}")
        if n_updates is not None:
            self.check_values(n_updates, training_plan)
        if global_model is not None:
            self._prepare(global_model, list(model_params))
        if isinstance(training_replies, Mapping):
            training_replies = training_replies[max(training_replies) if n_round is None else n_round]
        for reply in training_replies or ():
            if reply["node_id"] in model_params:
                self.hear(reply["node_id"], reply)
        self.begin(n_round or 0)
        for node_id, params in model_params.items():
            self.add(node_id, params, weights[node_id])
        return self.finish()

    def save_state_breakpoint(self, breakpoint_path: str | Path | None = None, **kwargs: Any) -> dict[str, Any]:
        """See `Aggregator`; writes `global_state_<uuid4>.mpk`, and `aggregator_correction_<node>.mpk` for each node.

        Raises:
            FedbiomedBreakpointError: no folder is given.
        """
        if breakpoint_path is None:
            raise FedbiomedBreakpointError("the controls of Scaffold need a folder: save_state_breakpoint(breakpoint_path)")
        saved = scaffold_state.Controls(self.global_state, self.nodes_states, self.nodes_deltas)
        parameters = {
            "server_lr": self.server_lr,
            "weighted": self.weighted,
            "warm_start": self.warm_start,
            "is_warm": self._is_warm,
            "nodes_lr": self.nodes_lr,
            "nodes_weights": self._nodes_weights,
            "held": None if self._held is None else self._held.saved(Path(breakpoint_path)),
            **scaffold_state.write(saved, Path(breakpoint_path)),
        }
        return {**super().save_state_breakpoint(breakpoint_path), "parameters": parameters}

    def load_state_breakpoint(self, state: Mapping[str, Any]) -> None:
        """See `Aggregator`.

        Raises:
            FedbiomedBreakpointError: it is the state of another aggregator, or a file is missing or not what it should be.
        """
        super().load_state_breakpoint(state)
        parameters = state.get("parameters")
        if not isinstance(parameters, Mapping):
            raise FedbiomedBreakpointError("the state of Scaffold has no parameters")
        controls = scaffold_state.read(parameters)
        known = restored(controls.global_state, parameters.get("held"))
        self.server_lr = checked_server_lr(parameters.get("server_lr"))
        self.weighted = bool(parameters.get("weighted"))
        self.warm_start, self._is_warm = bool(parameters.get("warm_start")), bool(parameters.get("is_warm"))
        self.nodes_lr = {node_id: dict(rates) for node_id, rates in parameters.get("nodes_lr", {}).items()}
        self._nodes_weights = dict(parameters.get("nodes_weights", {}))
        self.global_state, self.nodes_states, self.nodes_deltas = controls.global_state, controls.nodes_states, controls.nodes_deltas
        self._held = known

    def _prepare(self, global_model: Mapping[str, Any], node_ids: Iterable[str]) -> None:
        """Take note of what is sent, and let every node have a control: zero for a new one."""
        self._sent = dict(global_model)
        shapes = {name: tuple(value.shape) for name, value in global_model.items() if self._is_parameter(name)}
        known = next(iter(self.nodes_states.values()), None)
        if known is not None and {name: tuple(value.shape) for name, value in known.items()} != shapes:
            logger.warning("the model is another one than in the round before: the controls of Scaffold begin at zero again")
            self.nodes_states, self.global_state, self._is_warm = {}, {}, False
        everyone = dict.fromkeys([*(self._fds.node_ids() if self._fds is not None else self.nodes_deltas), *node_ids])
        new = {node_id: _zeros(global_model, shapes) for node_id in everyone if node_id not in self.nodes_states}
        if new or everyone.keys() != self.nodes_deltas.keys():
            self._settle({**self.nodes_states, **new}, everyone)

    def _prepare_sums(self, global_model: Mapping[str, Any], node_ids: Sequence[str]) -> None:
        """Take note of what is sent and to whom; controls that were known here go to their nodes."""
        self._sent = dict(global_model)
        shapes = {name: tuple(value.shape) for name, value in global_model.items() if self._is_parameter(name)}
        known = self._held
        everyone = {*(self._fds.node_ids() if self._fds is not None else () if known is None else known.everyone), *node_ids}
        if known is not None and {name: tuple(value.shape) for name, value in known.center.items()} != shapes:
            logger.warning("the model is another one than in the round before: the controls of Scaffold begin at zero again")
            self._forget_controls()
        elif known is not None and known.lost_by(everyone):
            lost = ", ".join(sorted(known.lost_by(everyone)))
            logger.warning("%s keeps its control of Scaffold, and is no node of this data set any more: all begin at zero again", lost)
            self._forget_controls()
        if self._held is None:
            if self.nodes_states:
                self._prepare(global_model, node_ids)
            self._held = held(self.global_state or _zeros(global_model, shapes), everyone, self.nodes_states)
            self.nodes_states, self.nodes_deltas = {}, {}
        self._held = self._held.among(everyone)
        self.global_state = self._held.center

    def _args_for_sums(
        self, small: Mapping[str, dict[str, Any]], aux_range: float
    ) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """What nodes that keep their controls need: c, and with which control they begin."""
        known = self._held or held({}, (), {})
        told = {"num_updates": self._n_updates, "aux_range": aux_range}
        large: dict[str, dict[str, Any]] = {node_id: {_CENTER: dict(known.center)} for node_id in small}
        for node_id in large.keys() & known.starts.keys():
            large[node_id][_START] = dict(known.starts[node_id])
        return {node_id: {**args, **told, "control": known.begins(node_id)} for node_id, args in small.items()}, large

    def _finished_sums(self, params: Params) -> Params:
        """What `finish` gives where nodes keep their controls."""
        known = (self._held or held({}, (), {})).after(*self._summed, self._change)
        if self.warm_start and not self._is_warm:
            params = {name: combined([(1.0, value)], name) for name, value in self._sent.items()}
            known, self._is_warm = known.warmed(self._change), True
        self._held, self.global_state = known, known.center
        self.begin(0)
        return params

    def _forget_controls(self) -> None:
        self._held, self._is_warm = None, False
        self.global_state, self.nodes_states, self.nodes_deltas = {}, {}, {}

    def _warmed(self) -> ByNode:
        """First controls of all nodes: their own gradients, and the mean of these for a node that has none."""
        mean = RunningMean()
        for node_id, control in self._made.items():
            mean.add(control, self._added[node_id] if self.weighted else 1.0, source=f"the control of {node_id}")
        usual = mean.mean()
        return {node_id: self._made.get(node_id, usual) for node_id in self.nodes_deltas}

    def _settle(self, states: ByNode, everyone: Iterable[str] | None = None) -> None:
        """Renew c and delta_i from c_i; a node that left the data set does not count, and keeps c_i should it come back."""
        nodes = list(self.nodes_deltas if everyone is None else everyone)
        shares, mean = self._shares(nodes), RunningMean()
        for node_id in nodes:
            mean.add(states[node_id], shares[node_id], source=f"the control of {node_id}")
        center = mean.mean()
        self.nodes_deltas = {
            node_id: {name: combined([(1.0, value), (-1.0, center[name])], name) for name, value in states[node_id].items()}
            for node_id in nodes
        }
        self.nodes_states, self.global_state = states, center

    def _shares(self, nodes: Sequence[str]) -> dict[str, float]:
        """By which each control counts in c."""
        known = [self._nodes_weights[node_id] for node_id in nodes if node_id in self._nodes_weights]
        if not self.weighted or not known:
            return dict.fromkeys(nodes, 1.0)
        usual = math.fsum(known) / len(known)
        return {node_id: self._nodes_weights.get(node_id, usual) for node_id in nodes}

    def _control(self, node_id: str, params: Mapping[str, Any]) -> Params:
        """c_i of a node that sent an update."""
        if self._n_updates is None or node_id not in self.nodes_deltas or node_id not in self.nodes_lr:
            raise AggregationError(
                f"Scaffold cannot use the update of {node_id}: it must be told num_updates (check_values), the model that was sent "
                "(create_aggregator_args) and the node's learning rates (hear) before"
            )
        made = dict(self.nodes_states[node_id])
        for name, delta in self.nodes_deltas[node_id].items():
            rate = self.nodes_lr[node_id].get(name, 0.0)
            if rate and name in params:  # a parameter without a rate does not move
                scale = 1 / (rate * self._n_updates)
                made[name] = combined([(1.0, delta), (scale, self._sent[name]), (-scale, params[name])], name)
        return made

    def _is_parameter(self, name: str) -> bool:
        if name not in self._sent:
            return False
        return name in self._names if self._names is not None else _is_floating(self._sent[name])


def _is_floating(value: Any) -> bool:
    return "float" in str(value.dtype)


def _zeros(model: Mapping[str, Any], names: Iterable[str]) -> Params:
    return {name: combined([(0.0, model[name])], name) for name in names}
