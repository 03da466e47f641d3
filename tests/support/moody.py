"""A plan that fails or waits as a test wants it, and what an experiment with it holds."""

import numpy as np
import pandas as pd
import torch
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.secagg.update import COUNTER_RANGE
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan

NODES = ["node_0", "node_1", "node_2"]


ARGS = {"num_updates": 2, "loader_args": {"batch_size": 8}, "random_seed": 7}


class MoodyPlan(TorchTrainingPlan):
    """Where a file lies beside the data, it does as the file is called: `fails`, `waits` (at two pipes) or tells `nan`."""

    def init_dependencies(self):
        return ["import pandas as pd", "import pathlib"]

    def init_model(self, model_args):
        return nn.Linear(1, 1)

    def init_optimizer(self, optimizer_args):
        return torch.optim.SGD(self.model().parameters(), lr=0.1)

    def training_data(self):
        table = pd.read_csv(self.dataset_path)
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy())

    def training_step(self, data, target):
        beside = pathlib.Path(self.dataset_path).parent  # noqa: F821  declared above
        if (beside / "fails").exists():
            raise ValueError("in a bad mood")
        if (beside / "waits").exists():
            (beside / "begun").write_text("begun")
            (beside / "go_on").read_text()
        factor = float("nan") if (beside / "nan").exists() else 1.0
        return factor * ((self.model()(data) - target) ** 2).mean()


EXPERIMENT = {"training_plan_class": MoodyPlan, "training_args": dict(ARGS)}


def weights(experiment, round_):
    return {name: np.asarray(value) for name, value in experiment.aggregated_params()[round_]["params"].items()}


def same(one, other):
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


def state(experiment):
    """All that a failed round must leave as it was."""
    job = experiment.job()
    return {
        "rounds": (experiment.round_current(), experiment.round_limit()),
        "replies": sorted(experiment.training_replies()),
        "history": experiment.history.to_dict(),
        "paths": {r: p["params_path"] for r, p in experiment.aggregated_params().items()},
        "params": {name: value.numpy().tobytes() for name, value in experiment.training_plan().get_model_params().items()},
        "job": (job.id, list(job.nodes)),
    }


def assert_close(secure, plain, clip=16, round_=0):
    """Equal within C / 2**(bits - 1), and what the dtype of the model itself rounds."""
    found = weights(secure, round_)
    assert found.keys() == plain.keys()
    for name, value in plain.items():
        assert found[name].dtype == value.dtype
        limit = (COUNTER_RANGE if "num_batches" in name else clip) / 2**31 + np.spacing(np.abs(value).max())
        np.testing.assert_allclose(found[name], value, rtol=0, atol=limit)
