"""`fedbiomed node start` on a real network: says when it is ready, is seen to run, and ends on SIGTERM."""

from pathlib import Path

import pytest

from fedbiomed.demo.processes import Background, each_at_once
from tests.conftest import Addresses
from tests.support.node_cli import refused, told, told_json


@pytest.fixture
def site(tmp_path: Path, network: Addresses) -> Path:
    """A new node's folder that knows the network."""
    broker = ":".join(map(str, network.mqtt_address))
    told("create", "--dir", tmp_path / "site", "--broker", broker, "--repository", network.http_url)
    return tmp_path / "site"


def test_a_node_runs_from_ready_to_the_signal(site: Path, tmp_path: Path) -> None:
    node_id = told_json("status", "--dir", site)["id"]
    running = Background(["node", "start", "--dir", str(site), "--gpu", "none"], tmp_path / "out.log")
    try:
        assert running.wait_until_ready() == f"ready node={node_id}"
        assert told_json("status", "--dir", site)["running"] is True
        assert "runs already" in refused("start", "--dir", site)
        plans = told_json("plan", "list", "--dir", site)
        assert {(plan["training_plan_type"], plan["training_plan_status"]) for plan in plans} == {("default", "Approved")}
        assert "pytorch-mnist.txt" in [plan["name"] for plan in plans]
    finally:
        running.end()
    assert told_json("status", "--dir", site)["running"] is False
    log = (site / "log" / "node.log").read_text()
    assert f"node {node_id} stops" in log
    assert "ERROR" not in log


def test_the_demo_s_commands_are_not_sent_elsewhere_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told("create", "--dir", tmp_path / "site")
    monkeypatch.setenv("CONFIG_FILE", "another.ini")
    monkeypatch.setenv("FBM_FEDERATION", "no/federation")
    each_at_once([["node", "status", "--dir", str(tmp_path / "site")]])
