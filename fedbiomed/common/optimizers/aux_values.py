"""Auxiliary variables of declearn's modules as plain dicts, which the Serializer carries, and back.

declearn packs them into objects of the class `AuxVar`. What travels is only their fields. The class is chosen by the module that
receives them: the one that it names itself, or that of the table below. A message never names a class.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedbiomed.common.declearn_library import AuxVar, OptiModule, ScaffoldAuxVar, Vector
from fedbiomed.common.exceptions import FedbiomedOptimizerError

AuxValues = dict[str, Any]
_CLASSES: Mapping[str, type[AuxVar]] = {"scaffold": ScaffoldAuxVar}


def aux_name(module: OptiModule[Any]) -> str:
    """Under which name a module and its counterpart on the other side exchange variables."""
    return module.aux_name or module.name


def to_dict(aux_var: AuxVar) -> AuxValues:
    """The fields that have a value."""
    return {
        name: sorted(value, key=str) if isinstance(value, set) else value for name, value in aux_var.to_dict().items() if value is not None
    }


def fields_of(module: OptiModule[Any]) -> frozenset[str]:
    """Names of the fields that a module's auxiliary variables may have.

    Raises:
        FedbiomedOptimizerError: the module takes none.
    """
    return frozenset(field.name for field in dataclasses.fields(class_of(module)))


def from_dict(module: OptiModule[Any], values: Mapping[str, Any]) -> AuxVar:
    """The auxiliary variables that a module takes.

    Args:
        module: that will process them.
        values: as `to_dict` gave them, but from elsewhere.

    Raises:
        FedbiomedOptimizerError: the module takes none, fields are wrong, or a value is not finite.
    """
    wanted = class_of(module)
    for name, value in values.items():
        if not _is_sound(value):
            raise FedbiomedOptimizerError(
                f"FB621: auxiliary variable {name!r:.80} for {aux_name(module)} is not made of finite numbers or texts: {value!r:.80}"
            )
    try:
        made: AuxVar = wanted.from_dict(dict(values))
    except (TypeError, ValueError, KeyError) as error:
        raise FedbiomedOptimizerError(
            f"FB621: auxiliary variables for {aux_name(module)} do not make a {wanted.__name__}: found {sorted(map(str, values))}: {error}"
        ) from error
    return made


def check_alike(one: AuxVar, other: AuxVar) -> None:
    """Check that the vectors of two sets of variables have the same names and shapes.

    Raises:
        FedbiomedOptimizerError: they do not.
    """
    ours, theirs = to_dict(one), to_dict(other)
    for name in ours.keys() & theirs.keys():
        if isinstance(ours[name], Vector) and isinstance(theirs[name], Vector) and shapes(ours[name]) != shapes(theirs[name]):
            raise FedbiomedOptimizerError(
                f"FB621: auxiliary variable {name!r} has the shapes {shapes(theirs[name])}, others have {shapes(ours[name])}"
            )


def shapes(vector: Vector[Any]) -> dict[str, tuple[int, ...]]:
    """Shape of each part of a vector, by its name."""
    return {name: tuple(coef.shape) for name, coef in vector.coefs.items()}


def class_of(module: OptiModule[Any]) -> type[AuxVar]:
    """The class of the auxiliary variables that a module takes.

    Raises:
        FedbiomedOptimizerError: it takes none.
    """
    found = module.auxvar_cls or _CLASSES.get(aux_name(module))
    if found is None:
        raise FedbiomedOptimizerError(
            f"FB621: module {module.name!r} takes no auxiliary variables; one that does names their class as its `auxvar_cls`"
        )
    return found


def _is_sound(value: object) -> bool:
    if isinstance(value, Vector):
        return all(bool(coef.isfinite().all()) if hasattr(coef, "isfinite") else _is_sound(coef) for coef in value.coefs.values())
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in "biuf" and bool(np.isfinite(value).all())
    if isinstance(value, Mapping):
        return all(_is_sound(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(_is_sound(item) for item in value)
    return isinstance(value, str) or value is None or (isinstance(value, bool | int | float) and math.isfinite(value))
