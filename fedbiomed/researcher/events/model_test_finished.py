"""The nodes have tested a global model."""

from fedbiomed.researcher.events.event import ModelTrainerEvent


class ModelTestFinished(ModelTrainerEvent):
    """All reports of a model test that will come have come."""

    def handle(self) -> None:
        """Keep the common metrics: means over the nodes that reported, weighted by their test samples.

        Raises:
            FedbiomedTrainerError: no model test has finished.
        """
        collected = self.trainer.take_test()
        self.training.metrics[self.training.round] = collected.metrics()

    def next(self) -> None:
        """A training round while rounds are left, else the end."""
        if self.training.is_target_reached:
            self.trainer.finish()
        else:
            self.trainer.start_round()
