"""Which models and states to keep, and when."""

from fedbiomed.common.checkpointing.best_loss import BestLossCheckpointer
from fedbiomed.common.checkpointing.best_metric import BestMetricCheckpointer
from fedbiomed.common.checkpointing.checkpointer import Checkpointer
from fedbiomed.common.checkpointing.client_module import CheckpointMode, ClientCheckpointAndStateModule
from fedbiomed.common.checkpointing.early_stopping import EarlyStopper
from fedbiomed.common.checkpointing.function import FunctionCheckpointer
from fedbiomed.common.checkpointing.latest import LatestCheckpointer
from fedbiomed.common.checkpointing.server_module import ServerCheckpointAndStateModule
from fedbiomed.common.checkpointing.state_checkpointer import PerRoundStateCheckpointer
from fedbiomed.common.checkpointing.training_state import TrainingState

__all__ = [
    "BestLossCheckpointer",
    "BestMetricCheckpointer",
    "CheckpointMode",
    "Checkpointer",
    "ClientCheckpointAndStateModule",
    "EarlyStopper",
    "FunctionCheckpointer",
    "LatestCheckpointer",
    "PerRoundStateCheckpointer",
    "ServerCheckpointAndStateModule",
    "TrainingState",
]
