"""A schema of the tables of real nodes, in one round."""

import json

import numpy as np
import pytest

from fedbiomed.common.exceptions import FedbiomedDatasetError
from fedbiomed.common.training_plans.table_plan import TableStatisticsPlan
from fedbiomed.researcher.tabular import tabular_schema


class Tables(TableStatisticsPlan):
    """Of columns x and y, and one that is made of the number of rows."""

    leave_out = ("y",)

    def init_dependencies(self):
        return ["import pandas as pd", "from fedbiomed.common.training_plans import TableStatisticsPlan"]

    def table(self):
        table = pd.read_csv(self.dataset_path)[["x", "y"]]  # noqa: F821  declared above
        table["site"] = f"of {len(table)}"
        return table


EXPERIMENT = {
    "training_plan_class": Tables,
    "training_args": {"epochs": 1, "loader_args": {"batch_size": 16}},
}


def test_one_round_gives_the_schema_of_all_nodes_and_nothing_else_leaves(made, federation):
    experiment = made()
    assert experiment.run(rounds=1) == 1
    replies = experiment.training_replies()[0]
    files = {f"node_{index}": federation.data(index) / "rows.csv" for index in range(2)}
    x = {node_id: np.genfromtxt(file, delimiter=",", names=True)["x"] for node_id, file in files.items()}
    for reply in replies:
        own = x[reply["node_id"]]
        told = json.loads(bytes(np.asarray(reply["params"]["description"]).tolist()).rstrip(b"\0"))
        assert told.keys() == {"site", "x"}
        assert told["site"] == {"categories": [f"of {len(own)}"]}
        assert told["x"] == pytest.approx({"minimum": own.min(), "maximum": own.max()})
        assert reply["params"].keys() == {"description", "unused"}
    schema = tabular_schema(replies)
    assert schema.titles() == ["site=of 30", "site=of 40", "site=unseen", "x", "x=missing"]
    everything = np.concatenate(list(x.values()))
    assert (schema.columns[1].minimum, schema.columns[1].maximum) == pytest.approx((everything.min(), everything.max()))
    assert tabular_schema(replies, "node_1").titles()[0] == "site=of 40"
    with pytest.raises(FedbiomedDatasetError, match="node_9 told of no table"):
        tabular_schema(replies, "node_9")


def test_a_reply_of_another_plan_is_refused():
    for params, message in (({"w": np.zeros(1)}, "tells of no table"), ({"description": np.ones(3, np.uint8)}, "cannot be read")):
        with pytest.raises(FedbiomedDatasetError, match=message):
            tabular_schema([{"node_id": "a", "params": params}])
