"""Dropout that goes on at test time.

Source: Gal and Ghahramani 2016, Dropout as a Bayesian Approximation (arXiv:1506.02142).
"""

import contextlib
from typing import Any

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedUncertaintyError
from fedbiomed.common.uncertainty.layers import dropouts, modes_kept
from fedbiomed.common.uncertainty.predictive import Prediction, output_of, predictive, required_count


class MCDropout:
    """Asks one network several times; its dropout layers, and nothing else, are in training mode meanwhile
    (Gal and Ghahramani 2016, arXiv:1506.02142). Exchanged: nothing; it asks a model that is there. Stays on the nodes: data.

    Args:
        model: a network with dropout layers; each of its layers is afterwards in the mode in which it was.
        passes: how many times, 2 or more.
        softmax: whether it gives logits.
        seed: of the dropout; each prediction then draws the same. None: torch's random state is used, and moved on.

    Raises:
        FedbiomedUncertaintyError: it has no dropout layer that drops anything, so all passes would be alike; or `passes` is wrong.
    """

    def __init__(self, model: nn.Module, passes: int = 10, *, softmax: bool = False, seed: int | None = None) -> None:
        self.passes = required_count("passes", passes)
        if not dropouts(model):
            raise FedbiomedUncertaintyError(f"{type(model).__name__} has no dropout layer with a probability above 0: its passes are alike")
        self.model, self.softmax, self.seed = model, softmax, seed

    def predict(self, inputs: Any) -> Prediction:
        """The mean of the passes, and their spread; see `predictive`."""
        with modes_kept(self.model), self._drawing():
            self.model.eval()
            for layer in dropouts(self.model):
                layer.train()
            outputs = [output_of(self.model, inputs) for _ in range(self.passes)]
        return predictive(outputs, softmax=self.softmax)

    @contextlib.contextmanager
    def _drawing(self) -> Any:
        if self.seed is None:
            yield
            return
        devices = [parameter.device for parameter in self.model.parameters() if parameter.device.type == "cuda"]
        with torch.random.fork_rng(devices=list(dict.fromkeys(devices))):
            torch.manual_seed(self.seed)
            yield
