"""A plan of the release runs on a node that requires approval; with a line changed the operator must decide, and can change their mind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedbiomed.common.exceptions import FedbiomedStrategyError
from fedbiomed.node.approval import PlanRegistry
from fedbiomed.node.default_plans import shipped_plans
from fedbiomed.node.store import NodeStore
from fedbiomed.node.worker import Worker
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.requests import Requests
from tests.support.memory_federation import TAGS, memory_federation

SOURCE = dict(shipped_plans())["pytorch-csv.txt"].decode()
OPTIONS = {
    "tags": TAGS,
    "training_plan_class": "CsvPlan",
    "model_args": {"columns": ["x"], "target": "y"},
    "training_args": {"num_updates": 2, "loader_args": {"batch_size": 8}, "random_seed": 3},
    "show_progress": False,
}


@pytest.fixture
def requests(tmp_path: Path, shared_worker: Worker) -> Iterator[Requests]:
    """A researcher beside one node that requires approval."""
    with (
        memory_federation(tmp_path, 0, shared_worker) as federation,
        federation.node(0, plan_approval=True),
        federation.researcher(tmp_path / "researcher") as connected,
    ):
        yield connected


def written(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_shipped_changed_asked_for_approved_and_rejected(tmp_path: Path, requests: Requests) -> None:
    shipped = Experiment(training_plan_path=written(tmp_path / "shipped.py", SOURCE), requests=requests, **OPTIONS)
    assert shipped.check_training_plan_status()[0]["status"] == "Approved"
    assert shipped.run_once() == 1

    changed_text = SOURCE.replace("F.mse_loss(self.model()(data), target)", "F.l1_loss(self.model()(data), target)")
    changed = Experiment(training_plan_path=written(tmp_path / "changed.py", changed_text), requests=requests, **OPTIONS)
    assert changed.check_training_plan_status()[0]["status"] == "Not Registered"
    with pytest.raises(FedbiomedStrategyError, match="not registered on this node"):
        changed.run_once()
    assert changed.training_plan_approve(changed.training_plan_file(display=False)) == {"node_0": True}
    assert changed.check_training_plan_status()[0]["status"] == "Pending"
    with NodeStore(tmp_path / "node_0" / "var" / "node.sqlite") as store:  # as the operator's commands do
        plans = PlanRegistry(store, approval_required=True)
        (waiting,) = [row for row in plans.all() if row["training_plan_status"] == "Pending"]
        assert waiting["training_plan_type"] == "requested"
        plans.approve(waiting["training_plan_id"])
        assert changed.run_once() == 1
        plans.reject(waiting["training_plan_id"], "not any more")
    with pytest.raises(FedbiomedStrategyError, match="not any more"):
        changed.run_once()
