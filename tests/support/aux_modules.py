"""Modules of optimizers that exchange auxiliary variables of several kinds."""

from dataclasses import dataclass

from fedbiomed.common.declearn_library import AuxVar, OptiModule, Vector


@dataclass
class LatestAux(AuxVar):
    """Of several nodes' values the last one counts."""

    value: float

    @staticmethod
    def aggregate_value(val_a, val_b):
        return val_b


@dataclass
class NamedAux(AuxVar):
    """Texts."""

    names: list[str]


@dataclass
class AverageAux(AuxVar):
    """Says by itself that it is not for secure aggregation."""

    mean: Vector

    def prepare_for_secagg(self):
        raise NotImplementedError("a moving average")


@dataclass
class SummedAux(AuxVar):
    """Sums, and how many they are of."""

    total: Vector
    count: int


class Counterpart(OptiModule, register=False):
    """Does nothing but to tell which variables it takes."""

    def run(self, gradients):
        return gradients

    def process_aux_var(self, aux_var):
        self.taken = aux_var


class Latest(Counterpart, register=False):
    """See `LatestAux`."""

    name, auxvar_cls = "latest", LatestAux


class Named(Counterpart, register=False):
    """See `NamedAux`."""

    name, auxvar_cls = "named", NamedAux


class Average(Counterpart, register=False):
    """See `AverageAux`."""

    name, auxvar_cls = "average", AverageAux


class Summing(Counterpart, register=False):
    """See `SummedAux`."""

    name, auxvar_cls = "summing", SummedAux
