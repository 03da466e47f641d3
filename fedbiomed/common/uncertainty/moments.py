"""First and second moments of weights over the snapshots of a training.

Source: Maddox et al. 2019, A Simple Baseline for Bayesian Uncertainty in Deep Learning (arXiv:1902.02476), algorithm 1.
"""

from collections import deque
from collections.abc import Mapping

import torch

from fedbiomed.common.exceptions import FedbiomedUncertaintyError


class MomentCollector:
    """Running mean and mean of squares, in float64: their difference is a small number between large ones.

    Args:
        max_rank: how many of the last deviations from the running mean are kept, in the weights' own dtype.
    """

    def __init__(self, max_rank: int = 0) -> None:
        self.count = 0
        self._first: dict[str, torch.Tensor] = {}
        self._second: dict[str, torch.Tensor] = {}
        self._deviations: deque[dict[str, torch.Tensor]] = deque(maxlen=max_rank)

    def add(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take one snapshot in.

        Raises:
            FedbiomedUncertaintyError: a weight is not a finite number; the training has diverged.
        """
        values = {name: weight.detach().double() for name, weight in weights.items()}
        wrong = [name for name, value in values.items() if not torch.isfinite(value).all()]
        if wrong:
            raise FedbiomedUncertaintyError(f"snapshot {self.count + 1} of SWAG holds NaN or infinite values in {', '.join(wrong[:5])}")
        if not self.count:
            self._first = {name: torch.zeros_like(value) for name, value in values.items()}
            self._second = {name: torch.zeros_like(value) for name, value in values.items()}
        self.count += 1
        for name, value in values.items():
            self._first[name] += (value - self._first[name]) / self.count
            self._second[name] += (value.square() - self._second[name]) / self.count
        if self._deviations.maxlen:
            self._deviations.append({name: (value - self._first[name]).to(weights[name].dtype).cpu() for name, value in values.items()})

    def first(self) -> dict[str, torch.Tensor]:
        """The mean of the snapshots by name, float64, on the CPU."""
        return {name: value.cpu().clone() for name, value in self._first.items()}

    def second(self) -> dict[str, torch.Tensor]:
        """The mean of their squares."""
        return {name: value.cpu().clone() for name, value in self._second.items()}

    def deviations(self) -> dict[str, torch.Tensor] | None:
        """The last deviations by name, one in each row; None for fewer than two."""
        if len(self._deviations) < 2:
            return None
        return {name: torch.stack([one[name] for one in self._deviations]) for name in self._first}
