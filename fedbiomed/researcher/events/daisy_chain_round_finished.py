"""A round of federated daisy-chaining has finished."""

from typing import Protocol

from fedbiomed.common.params import Params
from fedbiomed.researcher.course import CollectedRound
from fedbiomed.researcher.events.event import RoundTrainer
from fedbiomed.researcher.events.training_round_finished import TrainingRoundFinished


class ChainTrainer(RoundTrainer, Protocol):
    """What this event needs of a trainer beside the rest."""

    def is_aggregation_due(self, round_: int) -> bool:
        """Whether this round, counted from 0, ends with an average."""

    def pass_on(self, collected: CollectedRound) -> None:
        """Give the models back to the nodes, permuted where that is due."""

    def keep(self, collected: CollectedRound, params: Params | None) -> None:
        """Take the average over, where there is one, and let the states of optimizers go where their models go."""


class DaisyChainRoundFinished(TrainingRoundFinished):
    """Averages where that is due, and else gives the nodes' own models back, permuted. Only the final model is tested.

    Source: Kamp, Fischer and Vreeken 2023, Federated Learning from Small Datasets, algorithm 1 (arXiv:2110.03469).
    """

    def __init__(self, trainer: ChainTrainer) -> None:
        super().__init__(trainer)
        self._chain = trainer
        trainer.options.model_test_after_each_round = False

    def handle(self) -> None:
        """Average, or pass the models on; the round is done then.

        Raises:
            FedbiomedError: as in the base class.
        """
        collected = self._chain.take_round()
        params = None
        if self._chain.is_aggregation_due(self.training.round):
            params = collected.next_params()
        else:
            collected.updates.check(collected.job)
            self._chain.pass_on(collected)
        self._chain.keep(collected, params)
        self._close(collected)
