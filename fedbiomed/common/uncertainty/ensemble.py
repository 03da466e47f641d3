"""Several networks that were trained apart.

Source: Lakshminarayanan, Pritzel and Blundell 2017, Simple and Scalable Predictive Uncertainty Estimation (arXiv:1612.01474).
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedModelError, FedbiomedUncertaintyError
from fedbiomed.common.models.torch_model import TorchModel
from fedbiomed.common.uncertainty.layers import modes_kept
from fedbiomed.common.uncertainty.predictive import Prediction, output_of, predictive


class DeepEnsemble:
    """Asks each member, in evaluation mode; the members stay as they are (Lakshminarayanan et al. 2017, arXiv:1612.01474). Exchanged:
    nothing; members are for instance the results of several experiments. Stays on the nodes: data.

    Args:
        models: two networks or more, with outputs of one shape.
        softmax: whether they give logits.

    Raises:
        FedbiomedUncertaintyError: fewer than two, or not networks.
    """

    def __init__(self, models: Sequence[nn.Module], *, softmax: bool = False) -> None:
        self.models = list(models)
        if len(self.models) < 2 or not all(isinstance(model, nn.Module) for model in self.models):
            kinds = [type(model).__name__ for model in self.models]
            raise FedbiomedUncertaintyError(f"an ensemble is made of two torch modules or more, not of {kinds}")
        self.softmax = softmax

    @classmethod
    def of_params(cls, model: nn.Module, params: Sequence[Mapping[str, Any]], *, softmax: bool = False) -> Self:
        """An ensemble of copies of one network, each with other parameters.

        Args:
            model: the network; stays as it is.
            params: by name, as `exp.aggregated_params()[round]["params"]` gives them, or the nodes' own.
            softmax: whether it gives logits.

        Raises:
            FedbiomedUncertaintyError: parameters do not fit to the network, or there are fewer than two sets.
        """
        return cls([_filled(model, one, index) for index, one in enumerate(params)], softmax=softmax)

    def predict(self, inputs: Any) -> Prediction:
        """The mean of the members' outputs, and their spread; see `predictive`."""
        return predictive(self._outputs(inputs), softmax=self.softmax)

    def vote(self, inputs: Any) -> Prediction:
        """The class that most members name; of those with as many votes, the one of the greatest mean output. The rest as `predict`.

        Returns:
            Class indices, without the dimension of the classes, and beside the spread `votes`: shares of the members by class.

        Raises:
            FedbiomedUncertaintyError: the outputs have not two classes or more; take `predict`.
        """
        outputs = torch.stack(self._outputs(inputs))
        classes = 1 if outputs.dim() == 2 else 2
        if outputs.dim() <= classes or outputs.shape[classes] < 2:
            shape = tuple(outputs.shape[1:])
            raise FedbiomedUncertaintyError(f"a vote needs outputs of two classes or more, not of shape {shape}; take predict()")
        mean, spread = predictive(outputs, softmax=self.softmax)
        named = nn.functional.one_hot(outputs.argmax(dim=classes), outputs.shape[classes]).movedim(-1, classes)
        votes = named.sum(dim=0)
        most = votes == votes.amax(dim=classes - 1, keepdim=True)
        chosen = torch.where(most, mean, torch.full_like(mean, -torch.inf)).argmax(dim=classes - 1)
        return chosen, {**spread, "votes": votes.to(mean.dtype) / len(self.models)}

    def _outputs(self, inputs: Any) -> list[torch.Tensor]:
        outputs = []
        for model in self.models:
            with modes_kept(model):
                outputs.append(output_of(model.eval(), inputs))
        return outputs


def _filled(model: nn.Module, params: Mapping[str, Any], index: int) -> nn.Module:
    copied = copy.deepcopy(model)
    missing = [name for name, parameter in copied.named_parameters() if parameter.requires_grad and name not in params]
    try:
        if missing:
            raise FedbiomedModelError(f"there is no {', '.join(missing[:5])}")
        TorchModel(copied).set_weights(params)
    except FedbiomedModelError as error:
        raise FedbiomedUncertaintyError(f"parameters {index} of the ensemble do not fit to the network: {error}") from error
    return copied
