"""What users and machines get wrong: a clear error, and nothing lost. All with real processes."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from fedbiomed.common.exceptions import FedbiomedBreakpointError, FedbiomedError, FedbiomedStrategyError, FedbiomedUserInputError
from fedbiomed.demo.processes import Background
from fedbiomed.researcher.connect import connect
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.requests import Requests
from tests.support.brokers import free_port
from tests.support.federation import TAGS, command, researcher_config, running
from tests.support.node_cli import here
from tests.support.plans import LinePlan, SlowPlan

ARGS = {"epochs": 1, "loader_args": {"batch_size": 8}, "random_seed": 7}


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with running(tmp_path_factory.mktemp("bad-input"), nodes=3, idle_timeout_s=20, offline_grace_s=3) as started:
        yield started


@pytest.fixture
def experiment(federation):
    return Experiment(tags=TAGS, training_plan_class=LinePlan, training_args=dict(ARGS), requests=federation.requests)


@contextlib.contextmanager
def another_researcher(federation, folder, **settings):
    """Somebody with other settings on the same federation."""
    with connect(researcher_config(folder / "researcher", federation.federation, **settings)) as connection:
        yield Requests(connection)


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        ({"epoch": 1}, ["epoch", "epochs"]),
        ({"epochs": "1"}, ["epochs", "'1'"]),
        ({"epochs": 1, "test_ratio": 1.5}, ["test_ratio", "1.5"]),
        ({"epochs": 1, "loader_args": [8]}, ["loader_args"]),
    ],
)
def test_bad_training_args_change_nothing(experiment, args, parts):
    before = experiment.training_args()
    with pytest.raises(FedbiomedUserInputError) as caught:
        experiment.set_training_args(args)
    assert all(part in one_line(caught.value) for part in parts)
    assert experiment.training_args() == before
    assert experiment.run_once() == 1


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("import nothing_of_this_name\nclass Plan: pass\n", "nothing_of_this_name"),
        ("class Plan(:\n", "line 1"),
        ("class Other: pass\n", "Plan"),
    ],
    ids=["import", "syntax", "class"],
)
def test_a_plan_that_does_not_import(federation, tmp_path, source, part):
    path = tmp_path / "plan.py"
    path.write_text(source, encoding="utf-8")
    with pytest.raises(FedbiomedError) as caught:
        Experiment(
            tags=TAGS, training_plan_path=str(path), training_plan_class="Plan", training_args=dict(ARGS), requests=federation.requests
        )
    assert part in one_line(caught.value)


ASKS_FOR_AGE = """
import pandas as pd
from torch import nn
from fedbiomed.common.data import DataManager
from fedbiomed.common.training_plans import TorchTrainingPlan


class Plan(TorchTrainingPlan):
    def init_dependencies(self):
        return ["import pandas as pd"]

    def init_model(self):
        return nn.Linear(1, 1)

    def training_step(self, data, target):
        return ((self.model()(data) - target) ** 2).mean()

    def training_data(self):
        table = pd.read_csv(self.dataset_path)
        return DataManager(dataset=table[["age"]].to_numpy(), target=table[["y"]].to_numpy())
"""


def test_a_csv_with_missing_columns(federation, tmp_path):
    plan = tmp_path / "plan.py"
    plan.write_text(ASKS_FOR_AGE, encoding="utf-8")
    experiment = Experiment(
        tags=TAGS, training_plan_path=str(plan), training_plan_class="Plan", training_args=dict(ARGS), requests=federation.requests
    )
    with pytest.raises(FedbiomedStrategyError) as caught:
        experiment.run_once()
    assert "0 of 3 nodes" in one_line(caught.value)
    assert "age" in str(caught.value)
    assert experiment.round_current() == 0


def test_no_node_with_such_tags(federation):
    assert federation.requests.search(["no-such-tag"]) == {}
    with pytest.raises(FedbiomedError, match="no-such-tag"):
        Experiment(tags=["no-such-tag"], training_plan_class=LinePlan, training_args=dict(ARGS), requests=federation.requests)


def test_an_unapproved_plan(tmp_path):
    with running(tmp_path, nodes=1, node_options=()) as started:
        experiment = Experiment(tags=TAGS, training_plan_class=LinePlan, training_args=dict(ARGS), requests=started.requests)
        with pytest.raises(FedbiomedStrategyError, match="approv") as caught:
            experiment.run_once()
        one_line(caught.value)
        node = str(started.federation.sites[0].folder)
        plan = experiment.training_plan_file(display=False)
        sent = started.requests.training_plan_approve(plan, description="a line")
        assert list(sent.values()) == [True]
        plans = json.loads(here("node", "plan", "list", "--dir", node, "--json").stdout)
        waiting = [plan for plan in plans if plan["training_plan_type"] != "default"]
        assert [row["training_plan_status"] for row in waiting] == ["Pending"]
        with pytest.raises(FedbiomedStrategyError, match=r"ending|approv"):
            experiment.run_once()
        assert here("node", "plan", "approve", waiting[0]["training_plan_id"], "--dir", node).returncode == 0
        assert experiment.run_once() == 1
        assert here("node", "plan", "reject", waiting[0]["training_plan_id"], "--reason", "no", "--dir", node).returncode == 0
        with pytest.raises(FedbiomedStrategyError, match=r"eject|approv"):
            experiment.run_once()
        assert experiment.round_current() == 1


def worker_of(node: Background) -> psutil.Process:
    """The process that trains: the youngest of those below the daemon."""
    return max(psutil.Process(node.pid).children(recursive=True), key=lambda child: (child.create_time(), child.pid))


def begun_pipe(site) -> Path:
    """A pipe at which a slow plan tells that it has begun; reading it waits for that."""
    pipe: Path = site.hospital.path.with_name("begun")
    os.mkfifo(pipe)
    return pipe


def in_background(action):
    pool = ThreadPoolExecutor(1)
    future = pool.submit(action)
    pool.shutdown(wait=False)
    return future


SLOW = {"training_plan_class": SlowPlan, "training_args": {"num_updates": 1, "loader_args": {"batch_size": 4}}}


def test_a_killed_worker_is_told_and_the_node_lives_on(federation):
    pipe = begun_pipe(federation.federation.sites[0])
    experiment = Experiment(tags=TAGS, requests=federation.requests, **SLOW)
    future = in_background(experiment.run_once)
    pipe.read_text()
    pipe.unlink()
    worker_of(federation.federation.nodes["site-0"]).kill()
    with pytest.raises(FedbiomedStrategyError, match=r"signal 9|SIGKILL") as caught:
        future.result(timeout=25)
    one_line(caught.value)
    assert experiment.round_current() == 0
    assert experiment.run_once() == 1


def test_a_killed_daemon_goes_on_with_its_order_after_a_restart(federation, tmp_path):
    victim, site = federation.federation.nodes["site-0"], federation.federation.sites[0]
    pipe = begun_pipe(site)
    with another_researcher(federation, tmp_path, idle_timeout_s=60, offline_grace_s=25) as requests:
        experiment = Experiment(tags=TAGS, requests=requests, **SLOW)
        future = in_background(experiment.run_once)
        pipe.read_text()
        pipe.unlink()
        family = psutil.Process(victim.pid).children(recursive=True)
        os.kill(victim.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(family, timeout=15)
        assert alive == [], "the training process outlived its daemon"
        federation.federation.start_node(site)
        assert future.result(timeout=60) == 1
        assert len(experiment.training_replies()[0].data()) == 3


CONNECT = """
from fedbiomed.common.exceptions import FedbiomedError
from fedbiomed.researcher.requests import Requests
try:
    Requests()
except FedbiomedError as error:
    print(error)
"""


def test_a_broker_that_is_not_there(tmp_path):
    port = free_port()
    env = {**os.environ, "MQTT_BROKER": "127.0.0.1", "MQTT_BROKER_PORT": str(port)}
    answer = subprocess.run([sys.executable, "-c", CONNECT], capture_output=True, text=True, env=env, cwd=tmp_path, timeout=60, check=False)
    lines = answer.stdout.strip().splitlines()
    assert len(lines) == 1, answer
    assert f"127.0.0.1:{port}" in lines[0]
    assert "fedbiomed network start" in lines[0]


def test_a_repository_that_is_not_there(federation, tmp_path):
    port = free_port()
    config = replace(federation.requests.connection.config, root=tmp_path, repository=f"http://127.0.0.1:{port}", request_timeout_s=3.0)
    with connect(config) as connection, pytest.raises(FedbiomedError, match=f"127.0.0.1:{port}") as caught:
        Experiment(tags=TAGS, training_plan_class=LinePlan, training_args=dict(ARGS), requests=Requests(connection))
    assert "fedbiomed network start" in one_line(caught.value)


@pytest.mark.parametrize("which", ["--mqtt-port", "--http-port"])
def test_a_port_that_is_in_use(tmp_path, which):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        ports = {"--mqtt-port": "0", "--http-port": "0", which: port}
        answer = command("network", "start", "--dir", str(tmp_path / "network"), *(part for pair in ports.items() for part in pair))
    assert answer.returncode == 1
    assert port in answer.stderr
    assert "in use" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_an_incomplete_breakpoint(federation, experiment, tmp_path):
    experiment.run_once()
    experiment.breakpoint()
    whole = Path(experiment.experimentation_path()) / "breakpoint_0000"
    for index, missing in enumerate(sorted(path.name for path in whole.iterdir())):
        part = tmp_path / str(index) / whole.name
        shutil.copytree(whole, part)
        (part / missing).unlink()
        with pytest.raises(FedbiomedBreakpointError) as caught:
            Experiment.load_breakpoint(str(part), requests=federation.requests)
        assert missing in one_line(caught.value)
    with pytest.raises(FedbiomedBreakpointError, match="nowhere"):
        Experiment.load_breakpoint(str(tmp_path / "nowhere"), requests=federation.requests)
    assert Experiment.load_breakpoint(str(whole), requests=federation.requests).run(rounds=1, increase=True) == 1


def test_nodes_that_stay_away_end_the_round_with_their_names(federation, tmp_path):
    """The last test: it leaves no node."""
    site, *others = federation.federation.sites
    gone = json.loads(here("node", "status", "--dir", site.folder, "--json").stdout)["id"]
    with another_researcher(federation, tmp_path, offline_grace_s=1) as requests:
        experiment = Experiment(tags=TAGS, training_plan_class=LinePlan, training_args=dict(ARGS), requests=requests)
        os.kill(federation.federation.nodes[site.hospital.name].pid, signal.SIGKILL)
        with pytest.raises(FedbiomedStrategyError, match=gone) as caught:
            experiment.run_once()
        assert "2 of 3 nodes" in one_line(caught.value)
        assert experiment.round_current() == 0
        for other in others:
            os.kill(federation.federation.nodes[other.hospital.name].pid, signal.SIGKILL)
        with pytest.raises(FedbiomedStrategyError, match="0 of 3 nodes") as caught:
            experiment.run_once()
        one_line(caught.value)
        with pytest.raises(FedbiomedError, match="no node"):
            Experiment(tags=TAGS, training_plan_class=LinePlan, training_args=dict(ARGS), requests=requests)
