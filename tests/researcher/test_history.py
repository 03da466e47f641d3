import json
import math

import pytest

from fedbiomed.common.exceptions import FedbiomedBreakpointError
from fedbiomed.researcher.history import History, points_of
from fedbiomed.researcher.monitor import MetricStore, Monitor

DATASETS = {"node_a": "dataset_a", "node_b": "dataset_b"}


def report(value, *, metric="Loss", phase="TRAINING", iteration=1, epoch=1):
    return {"phase": phase, "metric": metric, "value": value, "iteration": iteration, "epoch": epoch}


def history():
    made = History()
    made.set_round(
        0,
        points_of(
            0,
            DATASETS,
            {
                "node_a": [
                    report(4.0),
                    report(2.0, iteration=2),
                    report(0.5, metric="ACCURACY", phase="VALIDATION ON LOCAL UPDATES", epoch=None),
                ],
                "node_b": [report(float("nan"))],
            },
        ),
    )
    made.set_round(1, points_of(1, DATASETS, {"node_a": [report(1.0)], "node_b": [report(float("inf"))]}))
    return made


def test_the_table_has_the_last_value_of_each_round():
    table = history().table()
    assert list(table.columns) == ["round", "node", "dataset", "metric", "value"]
    rows = [tuple(row) for row in table.itertuples(index=False)]
    assert rows[:2] == [
        (0, "node_a", "dataset_a", "TRAINING/Loss", 2.0),
        (0, "node_a", "dataset_a", "VALIDATION ON LOCAL UPDATES/ACCURACY", 0.5),
    ]
    assert rows[3:] == [
        (1, "node_a", "dataset_a", "TRAINING/Loss", 1.0),
        (1, "node_b", "dataset_b", "TRAINING/Loss", math.inf),
    ]
    assert math.isnan(rows[2][4])


def test_every_point_can_be_had():
    table = history().points_table()
    assert list(table.columns) == ["round", "node", "dataset", "metric", "iteration", "epoch", "value"]
    assert list(table["iteration"]) == [1, 2, 1, 1, 1, 1]
    assert table["epoch"].isna().tolist() == [False, False, True, False, False, False]


def test_an_empty_history_has_the_columns_too():
    table = History().table()
    assert list(table.columns) == ["round", "node", "dataset", "metric", "value"]
    assert table.empty
    assert str(table["value"].dtype) == "float64"


def test_a_round_takes_the_place_of_the_validation_that_stood_there():
    made = history()
    made.set_round(2, points_of(2, DATASETS, {"node_a": [report(0.1, metric="ACCURACY", phase="VALIDATION ON GLOBAL UPDATES")]}))
    made.set_round(2, points_of(2, DATASETS, {"node_b": [report(7.0)]}))
    assert [(point.node, point.label) for point in made.points() if point.round == 2] == [("node_b", "TRAINING/Loss")]


def test_a_node_whose_reply_did_not_count_is_left_out():
    assert points_of(0, {"node_a": "dataset_a"}, {"node_b": [report(1.0)]}) == []


@pytest.mark.parametrize("change", [{"phase": "NO PHASE"}, {"value": "much"}, {"value": None}, {"iteration": "x"}])
def test_a_malformed_report_is_left_out(change, caplog):
    reports = [{**report(1.0), **change}, report(2.0), {"phase": "TRAINING"}]
    assert [point.value for point in points_of(0, DATASETS, {"node_a": reports})] == [2.0]
    assert len(caplog.records) == 2


def test_it_survives_json_to_the_bit():
    made = history()
    text = json.dumps(made.save(), allow_nan=False)
    assert repr(History.load(json.loads(text)).points()) == repr(made.points())


@pytest.mark.parametrize(
    "rows", [1, [[0]], [[0, "n", "d", "NO PHASE", "Loss", 1.0, 1, 1]], [[0, "n", "d", "TRAINING", "Loss", "much", 1, 1]]]
)
def test_what_is_not_a_history_is_refused(rows):
    with pytest.raises(FedbiomedBreakpointError, match="history"):
        History.load(rows)


def test_the_monitor_counts_rounds_from_one():
    monitor = Monitor()
    monitor.restore(history().points())
    store = monitor._metric_store
    assert isinstance(store, MetricStore)
    assert store["node_a"]["training"]["Loss"][1] == {"iterations": [1, 2], "values": [4.0, 2.0]}
    assert store["node_a"]["testing_local_updates"]["ACCURACY"][1] == {"iterations": [1], "values": [0.5]}
    assert store["node_b"]["testing_global_updates"] == {}
