"""Every node trains alone; the models are merged once, afterwards."""

from fedbiomed.researcher.events.daisy_chain_trainer import DaisyChainTrainer


class MergeTrainer(DaisyChainTrainer):
    """Each node trains a model of its own, round after round; `Experiment.merge_models` averages them in the end
    (Zinkevich et al. 2010, NIPS). Exchanged: parameters, to each node its own. Stays on the nodes: data.

    Args:
        delete_local_models_after_aggregation: remove the nodes' result files of past rounds; the models that nodes hold stay.
    """

    def __init__(self, *, delete_local_models_after_aggregation: bool = True) -> None:
        super().__init__(
            daisy_chain_period=0,
            seed=0,
            with_optimizer=False,
            skip_model_tests=True,
            delete_local_models_after_aggregation=delete_local_models_after_aggregation,
        )

    def is_aggregation_due(self, round_: int) -> bool:
        """Never: the models are not averaged in the course of rounds."""
        return False
