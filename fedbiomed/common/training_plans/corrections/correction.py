"""What a correction is. A file of this family defines a class of `Correction`, and a function that makes one:

    def correction(training_args: TrainingArgs, aggregator_args: Mapping[str, Any]) -> Correction | None

which returns None where the algorithm is not asked for. Which files are asked is decided in `correction_choice.py`.
"""

from collections.abc import Mapping

import torch
from torch import nn


class Correction:
    """Changes the loss or the gradient of each local step; here it changes nothing.

    Attributes:
        counts_steps: whether the algorithm needs exactly the steps that were asked for.
        goes_with_privacy: whether what it adds depends on parameters alone, never on data: then it is added after the clipping and the
            noise of differential privacy. `corrected_loss` is then called with a loss of 0.
    """

    counts_steps = False
    goes_with_privacy = False

    def begin(self, module: nn.Module, initial: Mapping[str, torch.Tensor]) -> None:
        """Hear that a training begins.

        Args:
            module: the model, on the device on which it is trained.
            initial: its trainable parameters as the researcher sent them, by name; not to be changed.

        Raises:
            FedbiomedTrainingPlanError: what the aggregator sent does not fit to the model.
        """

    def corrected_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss whose gradient is followed; what is reported stays the plan's own.

        Args:
            loss: of one number.
        """
        return loss

    def correct_gradients(self) -> None:
        """Change the gradients of the module in place, after they were computed and before the optimizer's step."""
