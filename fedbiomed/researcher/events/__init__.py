"""What follows when a phase of a training has finished: one file per event and per trainer."""

from fedbiomed.researcher.course import Training, TrainingState
from fedbiomed.researcher.events.daisy_chain_round_finished import DaisyChainRoundFinished
from fedbiomed.researcher.events.daisy_chain_trainer import DaisyChainTrainer
from fedbiomed.researcher.events.event import ModelTrainerEvent
from fedbiomed.researcher.events.merge_trainer import MergeTrainer
from fedbiomed.researcher.events.model_test_finished import ModelTestFinished
from fedbiomed.researcher.events.model_trainer import ModelTrainer
from fedbiomed.researcher.events.options import TrainerOptions
from fedbiomed.researcher.events.swag_round_finished import SWAGRoundFinished
from fedbiomed.researcher.events.swag_trainer import SWAGTrainer
from fedbiomed.researcher.events.training_round_finished import TrainingRoundFinished, _aggregate_param_vectors

__all__ = [
    "DaisyChainRoundFinished",
    "DaisyChainTrainer",
    "MergeTrainer",
    "ModelTestFinished",
    "ModelTrainer",
    "ModelTrainerEvent",
    "SWAGRoundFinished",
    "SWAGTrainer",
    "TrainerOptions",
    "Training",
    "TrainingRoundFinished",
    "TrainingState",
    "_aggregate_param_vectors",
]
