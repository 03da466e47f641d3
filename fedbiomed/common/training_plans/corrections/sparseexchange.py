"""The nodes' half of the exchange of single entries, chosen by a score (scores: Zhou et al. 2019, arXiv:1905.01067)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.corrections.correction import Correction
from fedbiomed.common.training_plans.sparse_scores import INDICES, SCORES, VALUES


class TopEntries(Correction):
    """Lets only the top-scored entries of trained parameters leave, with their places in the flat array, which rise.

    Of entries that score alike the first ones are taken, in the order of the model. What is not trained leaves whole where it changed.

    Args:
        share: of the entries that leave, above 0 and at most 1.
        score: one of `SCORES`.
    """

    def __init__(self, share: float, score: str) -> None:
        self._share, self._score = share, SCORES[score]
        self._arrived: Mapping[str, Any] = {}
        self._trained: set[str] = set()

    def arriving(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Correction`."""
        self._arrived = params
        return params

    def begin(self, module: nn.Module, initial: Mapping[str, torch.Tensor]) -> None:
        """See `Correction`."""
        parameters = module.named_parameters(remove_duplicate=False)
        self._trained = {name for name, parameter in parameters if parameter.requires_grad}

    def leaving(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """See `Correction`."""
        pairs = {name: self._pair(name, value) for name, value in params.items()}
        trained = [name for name in pairs if name in self._trained]
        entries = dict(zip(trained, self._chosen([pairs[name] for name in trained]), strict=True))
        changed = {name for name, (before, after) in pairs.items() if name not in entries and not torch.equal(before, after)}
        return {
            name: _written(pairs[name][1], entries[name]) if name in entries else value
            for name, value in params.items()
            if name in changed or (name in entries and len(entries[name]))
        }

    def _chosen(self, pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
        """The places of each array's entries that leave."""
        if not pairs:
            return []
        scores = torch.cat([self._score(before.abs(), after.abs(), (after - before).abs()).reshape(-1).float() for before, after in pairs])
        count = math.ceil(round(self._share * len(scores), 9))
        least = scores.kthvalue(len(scores) - count + 1).values
        is_in = scores > least
        alike = (scores == least).nonzero().reshape(-1)
        is_in[alike[: count - int(is_in.sum())]] = True
        return [part.nonzero().reshape(-1) for part in torch.split(is_in, [before.numel() for before, _ in pairs])]

    def _pair(self, name: str, value: Any) -> tuple[torch.Tensor, torch.Tensor]:
        after, before = torch.as_tensor(value).detach(), self._arrived.get(name)
        if before is None or tuple(before.shape) != tuple(after.shape):
            found = "is none of those" if before is None else f"has the shape {tuple(after.shape)}, not the {tuple(before.shape)} of that"
            raise FedbiomedTrainingPlanError(f"FB605: SparseExchange cannot score {name!r}: it {found} which came")
        if not torch.isfinite(after).all():
            raise FedbiomedTrainingPlanError(f"FB605: after the training parameter {name!r} holds NaN or infinite values")
        return torch.as_tensor(before).to(after.dtype), after


def _written(array: torch.Tensor, places: torch.Tensor) -> dict[str, torch.Tensor]:
    narrow = torch.int32 if array.numel() < 1 << 31 else torch.int64
    return {INDICES: places.to(narrow), VALUES: array.reshape(-1)[places]}


def correction(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> TopEntries:
    """Asked for by the aggregator's name.

    Raises:
        FedbiomedTrainingPlanError: the aggregator did not send share and score.
    """
    share, score = aggregator_args.get("share"), aggregator_args.get("score")
    if not isinstance(share, float) or not 0 < share <= 1 or not isinstance(score, str) or score not in SCORES:
        raise FedbiomedTrainingPlanError(f"FB605: SparseExchange needs share and score, found {share!r:.40} and {score!r:.40}")
    return TopEntries(share, score)
