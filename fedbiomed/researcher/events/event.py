"""What an event is: something that has finished in the course of a training, and what follows from it."""

from abc import ABC, abstractmethod
from typing import Protocol

from fedbiomed.researcher.course import CollectedRound, CollectedTest, Training
from fedbiomed.researcher.events.options import TrainerOptions


class RoundTrainer(Protocol):
    """What events need of a trainer."""

    options: TrainerOptions
    training: Training

    def start_round(self) -> None:
        """Let a training round follow."""

    def test_round(self) -> None:
        """Let a model test follow."""

    def finish(self) -> None:
        """Let nothing follow."""

    def take_round(self) -> CollectedRound:
        """The round that has finished; each only once."""

    def take_test(self) -> CollectedTest:
        """The model test that has finished; each only once."""


class ModelTrainerEvent(ABC):
    """Something has finished.

    Args:
        trainer: whose training it is.

    Attributes:
        trainer: the same.
        training: the trainer's.
    """

    def __init__(self, trainer: RoundTrainer) -> None:
        self.trainer = trainer
        self.training = trainer.training

    @abstractmethod
    def handle(self) -> None:
        """Do what must be done.

        Raises:
            FedbiomedTrainerError: nothing of this kind has finished.
        """

    @abstractmethod
    def next(self) -> None:
        """Say to the trainer what follows."""
