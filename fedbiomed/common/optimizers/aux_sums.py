"""Which auxiliary variables of declearn's modules can be summed unseen, as secure aggregation does.

A module's variables are a dataclass. They can be summed where those of several nodes together are the sum of theirs, field by field, and
each field is a vector over the trainable parameters or a number. Whether that is so is read off the class: from its annotations, and from
the methods by which declearn lets a class combine its variables otherwise.
"""

import dataclasses
import typing
from enum import StrEnum

from fedbiomed.common.declearn_library import AuxVar, OptiModule, ScaffoldAuxVar, Vector
from fedbiomed.common.exceptions import FedbiomedOptimizerError
from fedbiomed.common.optimizers.aux_values import aux_name, class_of

_OTHERWISE = ("aggregate", "default_aggregate", "prepare_for_secagg")
_NUMBERS = (int, float)


class Summed(StrEnum):
    """What a field holds."""

    VECTOR = "vector"
    NUMBER = "number"


def summed_fields(module: OptiModule[typing.Any]) -> dict[str, Summed]:
    """The fields of a module's variables, as nodes send them.

    Args:
        module: of the researcher's optimizer.

    Raises:
        FedbiomedOptimizerError: they cannot be summed: of which module, and why.
    """
    kind = class_of(module)
    if kind is ScaffoldAuxVar:  # of its fields, `state` goes the other way, and `clients` follows from who is in the sum
        return {"delta": Summed.VECTOR}
    fields = dataclasses.fields(kind)
    methods = [*_OTHERWISE, *(f"aggregate_{field.name}" for field in fields)]
    own = [name for name in methods if not _is_same(kind, name)]
    if own:
        raise _refusal(module, f"{kind.__name__} combines those of several nodes otherwise ({own[0]})")
    try:
        hints = typing.get_type_hints(kind)
    except (NameError, TypeError) as error:
        raise _refusal(module, f"the annotations of {kind.__name__} cannot be read: {error}") from error
    return {field.name: _summed(module, field.name, hints.get(field.name)) for field in fields}


def _summed(module: OptiModule[typing.Any], name: str, hint: typing.Any) -> Summed:
    if typing.get_origin(hint) is Vector or (isinstance(hint, type) and issubclass(hint, Vector)):
        return Summed.VECTOR
    if hint in _NUMBERS:
        return Summed.NUMBER
    raise _refusal(module, f"field {name!r} is neither a Vector nor a number")


def _is_same(kind: type[AuxVar], name: str) -> bool:
    """Whether a class has a method as declearn's base class has it (a bound class method is another object at each access)."""
    found, base = getattr(kind, name, None), getattr(AuxVar, name, None)
    return getattr(found, "__func__", found) is getattr(base, "__func__", base)


def _refusal(module: OptiModule[typing.Any], why: str) -> FedbiomedOptimizerError:
    return FedbiomedOptimizerError(f"FB621: the auxiliary variables of module {module.name!r} ({aux_name(module)}) cannot be summed: {why}")
