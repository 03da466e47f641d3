"""`Optimizer`: gradient descent with modules and regularizers of declearn, on a node or on the researcher's side.

The steps are declearn's own. What stands here: checks and one kind of error, auxiliary variables as plain dicts, and states that can
be taken up again to the bit. Three faults of declearn 2.9 are worked around: the learning rate in force is not restored with a
scheduler's state, `round_reset` is missing in a module's configuration, and a number without decimal point is refused as learning rate.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

from fedbiomed.common import declearn_library as declearn
from fedbiomed.common.declearn_library import AuxVar, OptiModule, Regularizer, Scheduler, Vector
from fedbiomed.common.exceptions import FedbiomedOptimizerError
from fedbiomed.common.optimizers import aux_values
from fedbiomed.common.optimizers.aux_sums import Summed, summed_fields

Plugin = str | tuple[str, dict[str, Any]]
Rate = float | Scheduler | tuple[str, dict[str, Any]]
_FAULTS = (TypeError, ValueError, KeyError, AttributeError, RuntimeError, AssertionError, NotImplementedError, IndexError)


class Optimizer:
    r"""Turns gradients into updates: regularizers, then modules, then `update = -(lr * gradient + decay * weights)`.

    Args:
        lr: learning rate, 0 or more; or a scheduler of declearn, or its (name, configuration).
        decay: decoupled weight decay, likewise (Loshchilov and Hutter 2019, arXiv:1711.05101).
        modules: change gradients, in this order; each an object, a name, or (name, configuration). `list_optim_modules` tells the names.
        regularizers: add terms that depend on the weights, before the modules; likewise, see `list_optim_regularizers`.

    Raises:
        FedbiomedOptimizerError: an argument is none of these: which, and what is allowed.
    """

    def __init__(
        self,
        lr: Rate,
        decay: Rate = 0.0,
        modules: Sequence[OptiModule[Any] | Plugin] | None = None,
        regularizers: Sequence[Regularizer | Plugin] | None = None,
    ) -> None:
        given = {"modules": _list_of("modules", modules), "regularizers": _list_of("regularizers", regularizers)}
        try:
            self._engine = _Engine(lrate=_rate("lr", lr), w_decay=_rate("decay", decay), **given)
        except _FAULTS as error:
            raise FedbiomedOptimizerError(
                f"FB621: an Optimizer takes modules and regularizers as objects, names or (name, configuration): {_said(error)}; "
                "list_optim_modules() and list_optim_regularizers() tell the names"
            ) from error

    @classmethod
    def from_declearn_optimizer(cls, declearn_optimizer: declearn.Optimizer) -> Self:
        """The same as an optimizer of declearn, which stays untouched.

        Raises:
            FedbiomedOptimizerError: it is none.
        """
        if not isinstance(declearn_optimizer, declearn.Optimizer):
            raise FedbiomedOptimizerError(f"FB621: a declearn.optimizer.Optimizer is wanted, not {_kind(declearn_optimizer)}")
        theirs = copy.deepcopy(declearn_optimizer)
        made = cls(0.0)
        made._engine = _Engine.over(theirs)
        return made

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return float(self._engine.lrate)

    @property
    def module_names(self) -> list[str]:
        """Names of the modules, in their order."""
        return [module.name for module in self._engine.modules]

    @property
    def needs_weights(self) -> bool:
        """Whether a step depends on the weights."""
        return bool(self._engine.regularizers or self._engine.w_decay)

    def init_round(self) -> None:
        """Begin a round: what is bound to one (FedProx's reference, a schedule by rounds) begins anew."""
        self._engine.start_round()

    def step(self, grads: Vector[Any], weights: Vector[Any] | None) -> Vector[Any]:
        """Updates that are to be added to the weights.

        Args:
            grads: gradients by parameter.
            weights: of the same names and shapes; None will do where `needs_weights` is False.

        Raises:
            FedbiomedOptimizerError: one of them is no Vector, they do not fit together, or not to the gradients of former steps.
        """
        for name, value in (("grads", grads), ("weights", weights)):
            is_left_out = value is None and name == "weights" and not self.needs_weights
            if not isinstance(value, Vector) and not is_left_out:
                raise FedbiomedOptimizerError(f"FB621: {name} must be a Vector of declearn, not {_kind(value)}")
        try:
            return self._engine.compute_updates_from_gradients(_Weights(weights), grads)  # type: ignore[arg-type]  # asks no more of a model
        except _FAULTS as error:
            raise FedbiomedOptimizerError(f"FB621: a step with the modules {self.module_names} failed: {_said(error)}") from error

    def get_aux(self) -> dict[str, dict[str, Any]]:
        """What the modules have to tell their counterparts on the other side: `{name: {field: value}}`, for the Serializer.

        On a node once after training: a module may take it as told.
        """
        return {name: aux_values.to_dict(aux_var) for name, aux_var in self._engine.collect_aux_var().items()}

    def set_aux(self, aux: Mapping[str, Any]) -> None:
        """Hand on what came from the other side.

        Args:
            aux: by module `{field: value}`, as `get_aux` gave it; or `{node_id: {field: value}}` with those of several nodes.

        Raises:
            FedbiomedOptimizerError: no module takes it, or it is malformed; nothing has been taken over then.
        """
        ready = {name: self._received(name, content) for name, content in _mapping("aux", aux).items()}
        before = self._engine.get_state()
        try:
            self._engine.process_aux_var({name: aux_var for name, aux_var in ready.items() if aux_var is not None})
        except _FAULTS as error:
            self._engine.set_state(before)
            raise FedbiomedOptimizerError(f"FB621: auxiliary variables for {', '.join(ready)} were not taken: {_said(error)}") from error

    def aux_var_of(self, name: str, values: Mapping[str, Any]) -> AuxVar:
        """One side's auxiliary variables for a module of this optimizer, checked; they can be summed.

        Raises:
            FedbiomedOptimizerError: no module takes them, or they are malformed.
        """
        return aux_values.from_dict(self._module(name), _mapping(f"auxiliary variables for {name}", values))

    def summed_aux(self) -> dict[str, dict[str, Summed]]:
        """The fields of the auxiliary variables that come back, by module, where only the sum over nodes is known.

        Raises:
            FedbiomedOptimizerError: those of a module cannot be summed: which module, and why.
        """
        names = self.get_aux().keys() | {aux_values.aux_name(module) for module in self._engine.modules if module.auxvar_cls is not None}
        return {name: summed_fields(self._module(name)) for name in sorted(names)}

    def get_state(self) -> dict[str, Any]:
        """`{"config", "states"}`, of which `load_state` makes an optimizer that goes on to the bit; for the Serializer."""
        return {"config": self._engine.get_config(), "states": self._engine.get_state()}

    @classmethod
    def load_state(cls, state: Mapping[str, Any]) -> Self:
        """The optimizer that `get_state` told of. Modules are looked up among those that declearn knows in this process.

        Raises:
            FedbiomedOptimizerError: it is not such a state, or names what is not known.
        """
        config, states = _halves(state)
        made = cls(0.0)
        try:
            made._engine = _Engine.from_config(config)
            made._engine.set_state(states)
        except _FAULTS as error:
            raise FedbiomedOptimizerError(f"FB621: this is not the state of an Optimizer: {_said(error)}") from error
        return made

    def restore(self, state: Mapping[str, Any]) -> list[str]:
        """Take over the state of an optimizer like this one, each module's by position and name; the configuration stays.

        Args:
            state: as `get_state` gave it.

        Returns:
            What begins anew because the state has nothing for it, in words.

        Raises:
            FedbiomedOptimizerError: it is not such a state; this optimizer is as before then.
        """
        config, states = _halves(state)
        own, before = self._engine.get_config(), self._engine.get_state()
        try:
            fitting, anew = _matched(before, own, states, config)
            self._engine.set_state(fitting)
        except _FAULTS as error:
            self._engine.set_state(before)
            raise FedbiomedOptimizerError(f"FB621: the state does not fit: {_said(error)}") from error
        return anew

    def map_vectors(self, change: Any) -> None:
        """Replace each vector in the modules' states by what a function makes of it (to move them to a device)."""
        self._engine.set_state(_mapped(self._engine.get_state(), change))

    def vectors(self) -> list[Vector[Any]]:
        """All vectors in the modules' states."""
        found: list[Vector[Any]] = []
        _mapped(self._engine.get_state(), found.append)
        return found

    def __repr__(self) -> str:
        regularizers = [regularizer.name for regularizer in self._engine.regularizers]
        return f"Optimizer(lr={self.lr:g}, decay={self._engine.w_decay:g}, modules={self.module_names}, regularizers={regularizers})"

    def _received(self, name: str, content: Any) -> AuxVar | None:
        """The variables for a module, those of several nodes aggregated in their order."""
        if isinstance(content, AuxVar):
            return content
        values = _mapping(f"auxiliary variables for {name}", content)
        if not values:
            return None
        if values.keys() <= aux_values.fields_of(self._module(name)):
            return self.aux_var_of(name, values)
        parts = [self.aux_var_of(name, part) for part in values.values()]
        total = parts[0]
        for part in parts[1:]:
            total = added(total, part)
        return total

    def _module(self, name: str) -> OptiModule[Any]:
        found = next((module for module in self._engine.modules if aux_values.aux_name(module) == name), None)
        if found is None:
            raise FedbiomedOptimizerError(
                f"FB621: auxiliary variables came for a module {name!r:.80}, this optimizer has the modules {self.module_names}: "
                "node and researcher must use modules that belong together"
            )
        return found


def added(one: AuxVar, other: AuxVar) -> AuxVar:
    """The auxiliary variables of two nodes together.

    Raises:
        FedbiomedOptimizerError: they do not fit together.
    """
    aux_values.check_alike(one, other)
    try:
        return one.aggregate(other)
    except _FAULTS as error:
        raise FedbiomedOptimizerError(f"FB621: auxiliary variables of two nodes do not fit together: {_said(error)}") from error


class _Engine(declearn.Optimizer):
    """declearn's optimizer, with what its states and configurations lack."""

    @classmethod
    def over(cls, other: declearn.Optimizer) -> Self:
        """One made of the parts of another one, which is not to be used any more."""
        states = other.get_state()
        made = cls(other._lrate_scheduler, other._wrate_scheduler, other.regularizers, other.modules)
        made._lrate_scheduler.set_state(states["lrate"])  # which have just drawn a rate too many
        made._wrate_scheduler.set_state(states["w_decay"])
        made._lrate, made._wrate = other.lrate, other.w_decay
        return made

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**config, "modules": [(module.name, _full_config(module)) for module in self.modules]}

    def _set_state(self, states: dict[str, Any]) -> None:
        super()._set_state(states)
        self._lrate, self._wrate = _rate_in_force(self._lrate_scheduler), _rate_in_force(self._wrate_scheduler)


class _Weights:
    """Stands for the model that declearn's optimizer asks for its weights."""

    def __init__(self, weights: Vector[Any] | None) -> None:
        self._weights = weights

    def get_weights(self, trainable: bool = False) -> Vector[Any] | None:
        """The weights, trainable as they are."""
        return self._weights


def _full_config(module: OptiModule[Any]) -> dict[str, Any]:
    holder = module if hasattr(module, "round_reset") else getattr(module, "ewma", None)
    reset = getattr(holder, "round_reset", None)
    return module.get_config() if reset is None else {**module.get_config(), "round_reset": reset}


def _rate_in_force(scheduler: Scheduler) -> float:
    """The rate that was drawn last, which is that of the next step."""
    return scheduler.compute_value(step=max(0, scheduler.steps - 1), round_=scheduler.rounds)


def _matched(
    own_states: Mapping[str, Any], own_config: Mapping[str, Any], states: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """States of which those parts are another optimizer's that fit, and which do not."""
    fitting, anew = dict(own_states), []
    theirs = list(states["modules"])
    modules = []
    for position, (name, own) in enumerate(own_states["modules"]):
        fits = position < len(theirs) and theirs[position][0] == name
        modules.append((name, theirs[position][1] if fits else own))
        if not fits:
            anew.append(f"module {name!r} at position {position}")
    for key in ("lrate", "w_decay"):
        if _scheduler_name(own_config[key]) == _scheduler_name(config[key]):
            fitting[key] = states[key]
        else:
            anew.append(f"the schedule of {key}")
    return {**fitting, "modules": modules}, anew


def _scheduler_name(rate: Any) -> str:
    return rate[0] if isinstance(rate, list | tuple) else ""


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, Vector):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_mapped(item, change) for item in value)
    return value


def _halves(state: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    config, states = (state.get("config"), state.get("states")) if isinstance(state, Mapping) else (None, None)
    if not isinstance(config, dict) or not isinstance(states, dict):
        raise FedbiomedOptimizerError(f"FB621: the state of an Optimizer is a dict of `config` and `states`, not {_kind(state)}")
    return config, states


def _rate(name: str, given: Any) -> Any:
    if isinstance(given, bool) or not isinstance(given, int | float):
        return given  # declearn says what else is allowed
    if not (math.isfinite(given) and given >= 0):
        raise FedbiomedOptimizerError(f"FB621: {name} must be a finite number of 0 or more, not {given!r}")
    return float(given)


def _list_of(name: str, given: Any) -> Any:
    if given is not None and not isinstance(given, list | tuple):
        raise FedbiomedOptimizerError(f"FB621: {name} must be a list or None, not {_kind(given)}")
    return given


def _mapping(what: str, given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise FedbiomedOptimizerError(f"FB621: {what} must be a dict by name, not {_kind(given)}")
    return given


def _kind(value: object) -> str:
    return f"a {type(value).__name__} {value!r:.80}"


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
