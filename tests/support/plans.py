"""Small training plans for tests; only their class text travels, with the imports that they declare."""

import numpy as np
import pandas as pd
import torch
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.training_plans.sklearn_models import FedSGDClassifier
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan


class LinePlan(TorchTrainingPlan):
    """y = ax + b over columns x, y; dropout so that random states matter."""

    def init_dependencies(self):
        return ["import pandas as pd"]

    def init_model(self, model_args):
        return nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.2), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def init_optimizer(self, optimizer_args):
        return torch.optim.Adam(self.model().parameters(), lr=optimizer_args.get("lr", 0.01))

    def training_data(self):
        table = pd.read_csv(self.dataset_path)
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy(), shuffle=True)

    def training_step(self, data, target):
        return ((self.model()(data) - target) ** 2).mean()


class KeepingPlan(TorchTrainingPlan):
    """As LinePlan; the node keeps the best local model, the latest aggregated one and its state."""

    def init_dependencies(self):
        return ["import pandas as pd", "from fedbiomed.common import checkpointing"]

    def init_model(self, model_args):
        return nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.2), nn.Linear(4, 1))

    def init_optimizer(self, optimizer_args):
        return torch.optim.Adam(self.model().parameters(), lr=0.05)

    def checkpointing(self):
        return checkpointing.ClientCheckpointAndStateModule(  # noqa: F821  declared above
            checkpointing.BestLossCheckpointer(self.checkpoint_dir, "best_local"),  # noqa: F821
            checkpointing.LatestCheckpointer(self.checkpoint_dir, "latest_global"),  # noqa: F821
            checkpointing.PerRoundStateCheckpointer(self.checkpoint_dir),  # noqa: F821
        )

    def training_data(self):
        table = pd.read_csv(self.dataset_path)
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy(), shuffle=True)

    def training_step(self, data, target):
        return ((self.model()(data) - target) ** 2).mean()

    def testing_step(self, data, target):
        return {"Loss": float(((self.model()(data) - target) ** 2).mean())}


class SidePlan(FedSGDClassifier):
    """Which side of 0 the column x lies on."""

    def training_data(self):
        table = pd.read_csv(self.dataset_path)
        return DataManager(dataset=table[["x", "y"]].to_numpy(), target=(table["x"] > 0).astype(int).to_numpy(), shuffle=True)


class SlowPlan(TorchTrainingPlan):
    """Where a named pipe `begun` lies beside the data: writes to it when training begins, then trains until it is ended."""

    def init_dependencies(self):
        return ["import pathlib", "import threading"]

    def init_model(self, model_args):
        return nn.Linear(1, 1)

    def training_data(self):
        return DataManager(dataset=torch.ones(4, 1).numpy(), target=torch.ones(4, 1).numpy())

    def training_step(self, data, target):
        begun = pathlib.Path(self.dataset_path).with_name("begun")  # noqa: F821  declared above
        if begun.is_fifo():
            begun.write_text("begun")
            threading.Event().wait(60)  # noqa: F821
        return ((self.model()(data) - target) ** 2).mean()


def write_rows(path, rows, seed):
    """A csv of x and y = 2x + 1 + noise."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=rows)
    pd.DataFrame({"x": x, "y": 2 * x + 1 + 0.1 * generator.normal(size=rows)}).to_csv(path, index=False)
