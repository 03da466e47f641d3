"""Plans whose optimizers are made of declearn's modules; only their class text travels, with the imports that they declare."""

import numpy as np
import pandas as pd
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.optimizers.optimizer import Optimizer
from fedbiomed.common.training_plans.sklearn_models import FedSGDRegressor
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan


class TorchLine(TorchTrainingPlan):
    """y = ax + b with dropout and batch normalisation; `modules` of the optimizer come by `optimizer_args`."""

    def init_dependencies(self):
        return ["import pandas as pd", "from fedbiomed.common.optimizers.optimizer import Optimizer"]

    def init_model(self, model_args):
        return nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.2), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def init_optimizer(self, optimizer_args):
        return Optimizer(lr=0.05, modules=optimizer_args["modules"], regularizers=optimizer_args.get("regularizers"))

    def training_data(self):
        table = pd.read_csv(self.dataset_path)
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy(), shuffle=True)

    def training_step(self, data, target):
        return ((self.model()(data) - target) ** 2).mean()


class SklearnLine(FedSGDRegressor):
    """The same in scikit-learn, with an optimizer of declearn under the name that ours has elsewhere."""

    def init_dependencies(self):
        return ["import pandas as pd", "from declearn.optimizer import Optimizer"]

    def init_optimizer(self, optimizer_args):
        return Optimizer(lrate=0.05, modules=optimizer_args["modules"])

    def training_data(self):
        table = pd.read_csv(self.dataset_path)
        return DataManager(dataset=table[["x"]].to_numpy(), target=table["y"].to_numpy(), shuffle=True)


class FullBatchLine(FedSGDRegressor):
    """Rows in their order, one batch of all of them, so that a round can be done by hand."""

    def init_dependencies(self):
        return ["import pandas as pd", "from fedbiomed.common.optimizers.optimizer import Optimizer"]

    def init_optimizer(self, optimizer_args):
        return Optimizer(lr=optimizer_args["lr"], modules=optimizer_args["modules"])

    def training_data(self):
        table = pd.read_csv(self.dataset_path)
        return DataManager(dataset=table[["x"]].to_numpy(), target=table["y"].to_numpy(), batch_size=1000)


def mean_gradient(path, weights):
    """Gradient of half the mean squared error of y = ax + b on a csv, by its formula."""
    table = pd.read_csv(path)
    x, y = table["x"].to_numpy(), table["y"].to_numpy()
    error = weights["coef_"][0] * x + weights["intercept_"][0] - y
    return {"intercept_": np.array([error.mean()]), "coef_": np.array([(error * x).mean()])}
