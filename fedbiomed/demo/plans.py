"""The demo's two training plans, as a researcher would write them in a notebook."""

from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F  # noqa: N812  the name that plans use
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.training_plans.sklearn_models import FedSGDClassifier
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan


class BreastCancerNetwork(TorchTrainingPlan):
    """A network of one hidden layer."""

    def init_dependencies(self) -> list[str]:
        return ["from typing import Any", "import numpy as np", "import pandas as pd"]

    def init_model(self, model_args: dict[str, Any]) -> nn.Module:
        inputs, hidden = len(model_args["columns"]), model_args["hidden"]
        return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def init_optimizer(self, optimizer_args: dict[str, Any]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model().parameters(), lr=optimizer_args["lr"], weight_decay=0.01)

    def inputs(self, table: pd.DataFrame) -> np.ndarray[Any, Any]:
        args = self.model_args()
        lowest, highest = np.array(args["lowest"]), np.array(args["highest"])
        scaled: np.ndarray[Any, Any] = 4 * (table[args["columns"]].to_numpy() - lowest) / (highest - lowest) - 1
        return scaled

    def training_data(self) -> DataManager:
        table = pd.read_csv(self.dataset_path)
        target = table[[self.model_args()["target"]]].to_numpy()
        return DataManager(dataset=self.inputs(table), target=target, shuffle=True)

    def training_step(self, data: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(self.model()(data), target)

    def scores(self, table: pd.DataFrame) -> np.ndarray[Any, Any]:
        with torch.no_grad():
            scores: np.ndarray[Any, Any] = self.model()(torch.tensor(self.inputs(table), dtype=torch.float32)).squeeze(1).numpy()
        return scores


class BreastCancerClassifier(FedSGDClassifier):
    """A logistic regression, trained by stochastic gradient descent."""

    def init_dependencies(self) -> list[str]:
        return ["from typing import Any"]

    def inputs(self, table: pd.DataFrame) -> np.ndarray[Any, Any]:
        args = self.model_args()
        lowest, highest = np.array(args["lowest"]), np.array(args["highest"])
        scaled: np.ndarray[Any, Any] = 4 * (table[args["columns"]].to_numpy() - lowest) / (highest - lowest) - 1
        return scaled

    def training_data(self) -> DataManager:
        table = pd.read_csv(self.dataset_path)
        target = table[self.model_args()["target"]].to_numpy()
        return DataManager(dataset=self.inputs(table), target=target, shuffle=True)

    def scores(self, table: pd.DataFrame) -> np.ndarray[Any, Any]:
        scores: np.ndarray[Any, Any] = self.model().decision_function(self.inputs(table))
        return scores
