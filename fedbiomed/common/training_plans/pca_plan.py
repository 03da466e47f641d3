"""The nodes' half of federated principal components; the researcher's is the aggregator `FedPCA`."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.training_plans.base_plan import HistoryMonitor
from fedbiomed.common.training_plans.sklearn_plan import required_count
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan


class PrincipalComponents(nn.Module):
    """Principal components of rows.

    Args:
        columns: of the rows.
        components: how many are kept.

    Attributes:
        components: orthonormal rows `(components, columns)`, by falling singular value.
        singular_values: `(components,)`.
        sum_of_squares: of all entries of all rows.
    """

    components: torch.Tensor
    singular_values: torch.Tensor
    sum_of_squares: torch.Tensor

    def __init__(self, columns: int, components: int) -> None:
        super().__init__()
        for name, shape in (("components", (components, columns)), ("singular_values", (components,)), ("sum_of_squares", ())):
            self.register_parameter(name, nn.Parameter(torch.zeros(shape, dtype=torch.float64), requires_grad=False))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Coordinates of rows along the components, `(n, components)`."""
        return rows.to(torch.float64) @ self.components.T

    def explained_variance_ratio(self) -> torch.Tensor:
        """Share of each component in the sum of squares, `(components,)`."""
        return self.singular_values**2 / self.sum_of_squares


class PCATrainingPlan(TorchTrainingPlan):
    """Finds the principal components of the rows that `training_data` gives; a user's class defines that only. Targets do not matter.

    Rows are taken as they are: what all nodes agree on (means, scales) is subtracted and divided in `training_data`. `model_args` hold
    `n_features`, the columns, and `n_components`. What leaves a node are `n_components` singular vectors and values, the sum of squares
    of its rows, and their number, which must be as large as `n_components`: with fewer, the vectors would span the rows themselves.
    """

    def init_model(self, model_args: dict[str, Any]) -> PrincipalComponents:
        """See `TorchTrainingPlan`."""
        columns = required_count(model_args, "n_features", 1)
        components = required_count(model_args, "n_components", 1)
        if components > columns:
            raise FedbiomedTrainingPlanError(f"FB605: {columns} columns have no {components} components: lower n_components")
        return PrincipalComponents(columns, components)

    def init_optimizer(self, optimizer_args: dict[str, Any]) -> Any:
        """See `TorchTrainingPlan`; it is never used."""
        return torch.optim.SGD(self.model().parameters(), lr=1.0)

    def training_step(self, data: Any, target: Any) -> torch.Tensor:
        """Mean squared distance of rows from the space of the components."""
        model: PrincipalComponents = self.model()
        rows = data.to(torch.float64)
        return torch.as_tensor(((rows - model(rows) @ model.components) ** 2).sum(dim=1).mean())

    def training_routine(self, history_monitor: HistoryMonitor | None = None, node_args: Mapping[str, Any] | None = None) -> None:
        """See `BaseTrainingPlan`: all rows at once, whatever epochs and updates are asked for.

        Raises:
            FedbiomedTrainingPlanError: there are fewer rows than components, or they have other columns.
        """
        self._require_training_data()
        model: PrincipalComponents = self.model()
        rows = torch.cat([data.reshape(len(data), -1).to(torch.float64) for data, _ in self.training_data_loader])
        count, columns = model.components.shape
        if rows.shape[1] != columns or len(rows) < count:
            raise FedbiomedTrainingPlanError(
                f"FB605: {count} components of {columns} columns need that many columns, and rows; found {tuple(rows.shape)}"
            )
        _, values, vectors = torch.linalg.svd(rows, full_matrices=False)
        with torch.no_grad():
            model.components.copy_(vectors[:count])
            model.singular_values.copy_(values[:count])
            model.sum_of_squares.copy_((rows**2).sum())
