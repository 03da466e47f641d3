"""The optimizer on the researcher's side: it takes the way from the former parameters to the aggregate as a gradient.

Source: Reddi et al. 2021, Adaptive Federated Optimization, algorithm 1 (arXiv:2003.00295).
"""

import contextlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import (
    FedbiomedAggregatorError,
    FedbiomedBreakpointError,
    FedbiomedError,
    FedbiomedExperimentError,
    FedbiomedOptimizerError,
)
from fedbiomed.common.params import Params
from fedbiomed.common.secagg.beside import IDS, OPTIMIZER, named
from fedbiomed.common.serializer import Serializer

if TYPE_CHECKING:
    from fedbiomed.common.declearn_library import AuxVar
    from fedbiomed.common.optimizers.optimizer import Optimizer


class AuxTotal:
    """The auxiliary variables of a round's nodes, folded together as they come; holds one set, whatever the number of nodes.

    Args:
        optimizer: whose modules will take them; None: there is none.
    """

    def __init__(self, optimizer: "Optimizer | None") -> None:
        self._optimizer = optimizer
        self._total: dict[str, AuxVar] = {}
        self._unasked: dict[str, list[str]] = {}

    def checked(self, node_id: str, aux: Mapping[str, Any] | None) -> "dict[str, AuxVar]":
        """One node's auxiliary variables, ready for `add`.

        Raises:
            FedbiomedOptimizerError: they are not for this optimizer, malformed, or do not fit to those of the other nodes.
        """
        found = {name: values for name, values in (aux or {}).items() if values}
        if self._optimizer is None:
            if found:
                self._unasked[node_id] = sorted(found)
            return {}
        parts = {name: self._optimizer.aux_var_of(name, _known_as(name, values, [node_id])) for name, values in found.items()}
        for name, part in parts.items():
            self._with(name, part)
        return parts

    def add(self, parts: "Mapping[str, AuxVar]") -> None:
        """Take in what `checked` gave."""
        self._total.update({name: self._with(name, part) for name, part in parts.items()})

    def take_sum(self, values: Mapping[str, Mapping[str, Any]], nodes: Sequence[str], like: Mapping[str, Any]) -> None:
        """Take in the sum over nodes, where it is all that is known of them.

        Args:
            values: by module and field; a vector by the names of parameters.
            nodes: in the sum; the optimizer's modules know them by these ids.
            like: trainable parameters, of whose kind vectors are made.

        Raises:
            FedbiomedOptimizerError: the optimizer has no such module.
        """
        if self._optimizer is None or not values:
            return
        from fedbiomed.common.declearn_library import Vector  # heavy, and loaded where there is an optimizer

        def made(value: Any) -> Any:
            is_vector = isinstance(value, Mapping)
            return Vector.build({name: _alike(name, like[name], part) for name, part in value.items()}) if is_vector else float(value)

        for module, fields in values.items():
            total = {name: made(value) for name, value in fields.items()}
            self._total[module] = self._optimizer.aux_var_of(module, _known_as(module, total, nodes))

    def hand_over(self) -> None:
        """Give all of it to the optimizer.

        Raises:
            FedbiomedExperimentError: nodes sent auxiliary variables, but there is no optimizer.
            FedbiomedOptimizerError: it does not take them.
        """
        if self._unasked:
            told = "; ".join(f"{node_id}: {', '.join(names)}" for node_id, names in self._unasked.items())
            raise FedbiomedExperimentError(
                f"{ErrorNumbers.FB411.value}: the nodes' optimizers sent auxiliary variables ({told}), but the experiment has no "
                "agg_optimizer that takes them: set_agg_optimizer() with an Optimizer that has the matching module"
            )
        if self._optimizer is not None and self._total:
            self._optimizer.set_aux(self._total)

    def _with(self, name: str, part: "AuxVar") -> "AuxVar":
        from fedbiomed.common.optimizers.optimizer import added  # heavy, and loaded where there is an optimizer

        return added(self._total[name], part) if name in self._total else part


def _known_as(module: str, values: Mapping[str, Any], nodes: Sequence[str]) -> dict[str, Any]:
    """Variables of a module that counts its clients, with the ids of the nodes: the same with secure aggregation and without."""
    return {**values, IDS[1]: list(nodes)} if module == IDS[0] else dict(values)


def aux_shapes(optimizer: "Optimizer | None", trainable: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the auxiliary variables that nodes send, for their sum; see `common/secagg/beside.py`.

    Args:
        optimizer: the researcher's.
        trainable: parameters by name.

    Raises:
        FedbiomedOptimizerError: those of a module cannot be summed: which, and why.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for module, fields in ({} if optimizer is None else optimizer.summed_aux()).items():
        for field, kind in fields.items():
            if kind == "number":
                shapes[named(OPTIMIZER, module, field)] = ()
            else:
                shapes |= {named(OPTIMIZER, module, field, name): tuple(value.shape) for name, value in trainable.items()}
    return shapes


def aux_to_send(optimizer: "Optimizer | None") -> dict[str, dict[str, Any]] | None:
    """The optimizer's auxiliary variables for the nodes, by module."""
    return None if optimizer is None else optimizer.get_aux()


def stepped(optimizer: "Optimizer | None", former: Mapping[str, Any], aggregate: Params) -> Params:
    """The next parameters: `former + step(former - aggregate)`, and the aggregate where there is no optimizer.

    Args:
        former: trainable parameters before the round; what else the aggregate has (buffers) is taken from it.
        aggregate: what the aggregator made; stays untouched.

    Raises:
        FedbiomedAggregatorError: the aggregate has no trainable parameter, or one of another shape.
        FedbiomedOptimizerError: the step fails.
    """
    if optimizer is None:
        return aggregate
    from fedbiomed.common.declearn_library import Vector  # heavy, and loaded where there is an optimizer

    before = {name: value for name, value in former.items() if name in aggregate}
    if not before:
        raise FedbiomedAggregatorError(
            f"the aggregate has none of the trainable parameters {sorted(former)[:5]}: no gradient for agg_optimizer"
        )
    weights = Vector.build(before)
    gradient = weights - Vector.build({name: _alike(name, value, aggregate[name]) for name, value in before.items()})
    optimizer.init_round()
    return {**aggregate, **(weights + optimizer.step(gradient, weights)).coefs}


@contextlib.contextmanager
def undone_on_failure(optimizer: "Optimizer | None") -> Iterator[None]:
    """Put the optimizer's state back when the block raises."""
    state = None if optimizer is None else optimizer.get_state()
    try:
        yield
    except BaseException:
        if optimizer is not None and state is not None:
            optimizer.restore(state)
        raise


def save(optimizer: "Optimizer | None", folder: Path) -> str | None:
    """Write the optimizer's configuration and state to a new file in a folder; returns its path, None where there is no optimizer.

    Raises:
        FedbiomedBreakpointError: a module's state cannot be written.
    """
    if optimizer is None:
        return None
    path = folder / f"optimizer_{uuid.uuid4()}.mpk"
    try:
        Serializer.dump(optimizer.get_state(), path)
    except FedbiomedError as error:
        raise FedbiomedBreakpointError(f"{ErrorNumbers.FB413.value}: the state of agg_optimizer cannot be written: {error}") from error
    return str(path)


def load(path: str | None) -> "Optimizer | None":
    """The optimizer that `save` wrote.

    Raises:
        FedbiomedBreakpointError: the file holds something else, or names a module that is not known in this process.
    """
    if path is None:
        return None
    from fedbiomed.common.optimizers.optimizer import Optimizer  # heavy

    try:
        return Optimizer.load_state(Serializer.load(path))
    except (FedbiomedError, OSError) as error:
        raise FedbiomedBreakpointError(f"{ErrorNumbers.FB413.value}: cannot restore agg_optimizer from {path}: {error}") from error


def of(given: Any) -> "Optimizer | None":
    """An optimizer of ours as it is, one of declearn converted, None for none.

    Raises:
        FedbiomedExperimentError: anything else.
    """
    if given is None:
        return None
    from fedbiomed.common.optimizers.declearn_optimizer import as_optimizer  # heavy

    try:
        return as_optimizer(given)
    except FedbiomedOptimizerError as error:
        raise FedbiomedExperimentError(
            f"{ErrorNumbers.FB410.value}: agg_optimizer must be an Optimizer of fedbiomed.common.optimizers or None, not {given!r:.120}"
        ) from error


def _alike(name: str, former: Any, value: Any) -> Any:
    """A value of the aggregate as the former one is: a tensor or an array, of its dtype."""
    if tuple(former.shape) != tuple(np.shape(value)):
        raise FedbiomedAggregatorError(f"parameter {name!r} has the shape {tuple(former.shape)}, the aggregate {tuple(np.shape(value))}")
    if not hasattr(former, "detach"):
        return np.asarray(value, dtype=former.dtype)
    import torch  # heavy; somebody who gave tensors has loaded it

    return torch.as_tensor(value).detach().to(former.device, former.dtype)
