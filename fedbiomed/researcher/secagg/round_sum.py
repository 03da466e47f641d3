"""What a secure round sums, part by part, and where the opened means go."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedbiomed.common.params import Params
from fedbiomed.common.secagg.beside import OPTIMIZER, nested
from fedbiomed.common.secagg.errors import round_error
from fedbiomed.common.secagg.layout import Floats, Layout
from fedbiomed.common.secagg.part_rules import PartRule
from fedbiomed.common.secagg.quantise import mean_of
from fedbiomed.common.secagg.terms import Purpose, Terms, Weighting
from fedbiomed.common.secagg.update import COUNTER_RANGE, digest_of, layouts_of, moved, without_rounding
from fedbiomed.common.security.keystream import Words
from fedbiomed.researcher.aggregators.aggregator import Aggregator
from fedbiomed.researcher.job import Job
from fedbiomed.researcher.server_optimizer import AuxTotal, aux_shapes


@dataclass(frozen=True, slots=True)
class Ranges:
    """To which ranges values are cut.

    Args:
        clip: of floating parameters.
        aux: of what goes beside the parameters.
    """

    clip: float
    aux: float

    def of(self, purpose: Purpose) -> float:
        """The range of a purpose."""
        return {Purpose.WEIGHTS: self.clip, Purpose.AUX: self.aux, Purpose.METRICS: COUNTER_RANGE}[purpose]


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What an opened sum tells.

    Args:
        nodes: in the sum.
        weight: of all of them, by which the mean of their parameters counts.
        params: the mean of their parameters.
        beside: means of what went beside, by name.
    """

    nodes: tuple[str, ...]
    weight: int
    params: Params
    beside: Mapping[str, Any]

    def hand_on(self, aggregator: Aggregator, aux: AuxTotal, trainable: Mapping[str, Any]) -> None:
        """Give each what is its own.

        Args:
            aggregator: gets the mean, as if it were the update of one node.
            aux: gets the sum of auxiliary variables.
            trainable: the researcher's parameters, of whose kind they are.
        """
        own = {name: value for name, value in self.beside.items() if not name.startswith(f"{OPTIMIZER}/")}
        summed = {name: value * len(self.nodes) for name, value in self.beside.items() if name not in own}
        aux.take_sum(nested(summed, OPTIMIZER), self.nodes, trainable)
        aggregator.hear_sum(self.nodes, float(self.weight), own)
        aggregator.add(f"the sum of {len(self.nodes)} nodes", self.params, float(self.weight))


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSum:
    """The parts of a round.

    Args:
        digest: of the model, see `update.digest_of`.
        layouts: by purpose.
        weightings: by purpose.
        sent: parameters that the nodes get.
    """

    digest: str
    layouts: Mapping[Purpose, Layout]
    weightings: Mapping[Purpose, Weighting]
    sent: Params

    @classmethod
    def of(cls, job: Job, aggregator: Aggregator, agg_optimizer: Any, read: Callable[[], Params]) -> "RoundSum":
        """What a round of these sums.

        Args:
            job: with the plan.
            aggregator, agg_optimizer: of the experiment.
            read: gives the parameters that the nodes get.

        Raises:
            FedbiomedSecureAggregationError: aggregator and optimizer would count the nodes otherwise in what goes beside the parameters.
        """
        plan, terms = job.training_plan, aggregator.sum_terms(job.training_plan)
        model = {name: value for name, value in plan.get_model_params().items() if aggregator.travels(name)}
        of_optimizer = aux_shapes(agg_optimizer, plan.get_model_params(only_trainable=True))
        if of_optimizer and terms.beside and terms.weighting is not Weighting.NODES:
            raise round_error(
                f"both the aggregator {aggregator.aggregator_name} and agg_optimizer exchange auxiliary variables, the one weighted by "
                "samples, the other not: choose one of them"
            )
        layouts, beside = layouts_of(model), {**terms.beside, **of_optimizer}
        weightings = dict.fromkeys(layouts, terms.weighting)
        if beside:
            layouts[Purpose.AUX] = Layout(tuple(sorted(beside.items())))
            weightings[Purpose.AUX] = Weighting.NODES if of_optimizer else terms.weighting
        file = read()
        return cls(digest=digest_of(model), layouts=layouts, weightings=weightings, sent={name: file[name] for name in model})

    @property
    def told(self) -> str:
        """What is summed and how nodes count, as text."""
        return repr([(purpose.value, self.weightings[purpose].value, layout.digest) for purpose, layout in sorted(self.layouts.items())])

    @property
    def weighs_twice(self) -> bool:
        """Whether nodes count by their samples in one part, and alike in another."""
        return len(set(self.weightings.values())) > 1

    def rules(self, ranges: Ranges) -> tuple[PartRule, ...]:
        """What orders tell of the parts."""
        return tuple(
            PartRule(purpose=purpose, clip=ranges.of(purpose), weighting=self.weightings[purpose], layout=layout.digest.hex())
            for purpose, layout in self.layouts.items()
        )

    def means(self, sums: Mapping[Purpose, Words], nodes: Sequence[str], terms: Terms, ranges: Ranges) -> Means:
        """What opened sums tell.

        Args:
            sums: by purpose, exact.
            nodes: in the sums.
            terms: of the session.
            ranges: of the round.

        Raises:
            FedbiomedSecureAggregationError: the sums are not those of these nodes: a node broke the rules.
        """
        found: dict[Purpose, dict[str, Floats]] = {}
        weights: dict[Weighting, int] = {Weighting.NODES: len(nodes)}
        for purpose, words in sums.items():
            weighting, most = self.weightings[purpose], len(terms.members) * terms.max_weight
            total, found[purpose] = mean_of(words, self.layouts[purpose], ranges.of(purpose), terms.bits, most)
            if weights.setdefault(weighting, total) != total:
                raise round_error("the sums of the round do not count alike: a node broke the rules; run again")
        beside = found.pop(Purpose.AUX, {})
        if Purpose.METRICS in found:
            found[Purpose.METRICS] = without_rounding(found[Purpose.METRICS], terms.bits)
        ways = {name: way for means in found.values() for name, way in means.items()}
        params = moved(self.sent, ways)
        weight = weights[next(self.weightings[purpose] for purpose in found)]
        return Means(nodes=tuple(nodes), weight=weight, params={name: params[name] for name in self.sent}, beside=beside)
