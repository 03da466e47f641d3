"""A researcher reads what its nodes log about its orders; real nodes, transports in memory."""

import pandas as pd
import pytest
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.exceptions import FedbiomedError
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.researcher.experiment import Experiment
from tests.support.memory_federation import TAGS
from tests.support.node_records import node_records
from tests.support.plans import LinePlan

ARGS = {"num_updates": 2, "loader_args": {"batch_size": 8}}


class SecretPlan(TorchTrainingPlan):
    """Fails, and tells a value and the path of the data."""

    def init_dependencies(self):
        return ["import pandas as pd", "import sys"]

    def init_model(self, model_args):
        return nn.Linear(1, 1)

    def training_data(self):
        table = pd.read_csv(self.dataset_path)
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy())

    def training_step(self, data, target):
        print("Dupont", file=sys.stderr)  # noqa: F821  declared above
        raise ValueError(f"Dupont {float(data[0])} in {self.dataset_path}")


@pytest.fixture
def records():
    with node_records() as kept:
        yield kept


def run(requests, plan=LinePlan, **changes):
    made = {"tags": TAGS, "training_plan_class": plan, "training_args": ARGS, "requests": requests, "show_progress": False}
    Experiment(**{**made, **changes}).run_once()


def test_each_node_tells_what_becomes_of_an_order(requests, records):
    run(requests)
    for node in ("node_0", "node_1"):
        block = next((block for block in records.seen if node in block and "is done" in block), None)
        block = block or records.with_words(f"node:    {node}", "training is done after")
        assert block.startswith("INFO log of a node")
        assert "level:   INFO" in block
        assert any(node in seen and "round 0 of job_" in seen and "begins" in seen for seen in records.seen)


def test_a_failure_is_told_without_what_the_plan_said(requests, records):
    with pytest.raises(FedbiomedError, match="Dupont"):  # the reply, to who gave the order, may tell it
        run(requests, SecretPlan, nodes=["node_0"])
    block = records.with_words("node:    node_0", "WARNING", "FB605 (…)")
    assert "level:   WARNING" in block
    for seen in records.seen:
        assert "Dupont" not in seen
        assert "/" not in seen, "no path"


def test_a_node_may_keep_its_log_to_itself(federation, tmp_path, records):
    with federation.node(7, forward_logs=False), federation.researcher(tmp_path / "researcher") as requests:
        run(requests, nodes=["node_7", "node_0"])
        records.with_words("node:    node_0", "is done")
    assert not [seen for seen in records.seen if "node_7" in seen]
