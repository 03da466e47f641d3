"""The nodes' half of tabular alignment; the researcher's is `tabular_schema`."""

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.data.tabular_alignment import table_statistics
from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.training_plans.base_plan import HistoryMonitor
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.common.training_plans.user_code import call_user

_CAPACITY = 1 << 16


class TableDescription(nn.Module):
    """What is told of tables, as JSON in UTF-8 that is filled up with zeros: `description`, uint8 `(65536,)`."""

    description: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("unused", nn.Parameter(torch.zeros(1), requires_grad=False))
        self.register_buffer("description", torch.zeros(_CAPACITY, dtype=torch.uint8))

    def write(self, told: Mapping[str, Any]) -> None:
        """Take a description over.

        Raises:
            FedbiomedTrainingPlanError: it is too long.
        """
        text = json.dumps(told).encode()
        if len(text) > _CAPACITY:
            raise FedbiomedTrainingPlanError(f"FB605: the table's description takes {len(text)} bytes of {_CAPACITY}: leave columns out")
        self.description.copy_(torch.tensor(list(text.ljust(_CAPACITY, b"\0")), dtype=torch.uint8))


class TableStatisticsPlan(TorchTrainingPlan):
    """Tells of a node's table what `table_statistics` tells, and nothing else; a user's class defines `table`.

    After one round `tabular_schema(exp.training_replies()[0])` is the schema of all nodes. `schema.to_dict()` goes into the `model_args` of
    the plan that trains, which calls `TabularSchema.from_dict(...).transform(table)`.

    Attributes:
        least_rows: a category of fewer rows is not told. Part of the class, so that the operator's approval holds for it.
        leave_out: columns of which nothing is told, as above.
    """

    least_rows = 5
    leave_out: Sequence[str] = ()

    @abstractmethod
    def table(self) -> Any:
        """The node's table, a pandas DataFrame, out of `self.dataset_path`."""

    def init_model(self, model_args: dict[str, Any]) -> TableDescription:
        """See `TorchTrainingPlan`."""
        return TableDescription()

    def init_optimizer(self, optimizer_args: dict[str, Any]) -> Any:
        """See `TorchTrainingPlan`; it is never used."""
        return torch.optim.SGD(self.model().parameters(), lr=1.0)

    def training_data(self) -> DataManager:
        """See `BaseTrainingPlan`: as many rows as the table has, all of them empty."""
        rows = len(call_user(self, "table"))
        return DataManager(dataset=torch.zeros(rows, 1).numpy(), target=torch.zeros(rows, 1).numpy())

    def training_step(self, data: Any, target: Any) -> torch.Tensor:
        """See `TorchTrainingPlan`; there is no loss."""
        return torch.zeros(())

    def training_routine(self, history_monitor: HistoryMonitor | None = None, node_args: Mapping[str, Any] | None = None) -> None:
        """See `BaseTrainingPlan`: describes the table."""
        told = table_statistics(call_user(self, "table"), self.least_rows, leave_out=self.leave_out)
        model: TableDescription = self.model()
        model.write(told)
