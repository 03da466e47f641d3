"""Whatever a plan does to its process, the daemon hears of it in one sentence and the next round runs. All with real processes."""

import dataclasses
import os
import signal
import threading

import numpy as np
import psutil
import pytest

from fedbiomed.common.exceptions import FedbiomedRoundError, WorkerError, WorkerInterrupted
from fedbiomed.common.serializer import Serializer
from fedbiomed.node.worker import StopSignal, Worker
from tests.support.orders import WEIGHTS, node_config, plan_source
from tests.support.tasks import round_task

PLAN = plan_source()


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return node_config(tmp_path_factory.mktemp("worker"), worker_memory_mb=600, minimum_samples=2)


@pytest.fixture(scope="module")
def worker(config):
    before = {name: os.environ.get(name) for name in ("FBM_SECRET", "PATH")}
    os.environ["FBM_SECRET"] = "s3cret-token"
    with Worker(config) as started:
        started.start()
        yield started
    if before["FBM_SECRET"] is None:
        del os.environ["FBM_SECRET"]


@pytest.fixture
def task(tmp_path):
    return round_task(tmp_path)


def run(worker, task, source=PLAN, *, limit_s=25.0, on_progress=lambda _report: None, stop=None):
    signal_ = stop or StopSignal()
    try:
        return worker.run(task, source, stop=signal_, limit_s=limit_s, on_progress=on_progress)
    finally:
        signal_.close()


def children_of(config):
    """The host of the worker with these settings and, below it, the training process."""
    folder = str(config.var / "work")
    host = next(process for process in psutil.Process().children() if process.cwd() == folder)
    return host, host.children(recursive=True)


def lives_on(worker, task):
    assert run(worker, task).sample_size == 8
    return True


def test_a_round_leaves_its_result(worker, task):
    result = run(worker, task)
    assert result.sample_size == 8
    assert result.msg == ""
    assert result.timing.keys() == {"rtime_training", "ptime_training"}
    written = Serializer.load(task.result)
    assert written["node_id"] == task.node_id
    assert written["state_id"] == task.state_id
    assert written["model_weights"].keys() == WEIGHTS.keys()
    assert not np.array_equal(np.asarray(written["model_weights"]["weight"]), WEIGHTS["weight"])


def test_the_process_stays_warm_for_one_job_and_plan_only(worker, task):
    whoami = plan_source(step="import os; raise ValueError(os.getpid())")
    marked = plan_source(top="import os", step="print(os.getpid(), file=open(self.dataset_path + '.pid', 'w'))")

    def pid_of(source, **changes):
        run(worker, dataclasses.replace(task, **changes), source)
        with open(task.dataset_path + ".pid", encoding="ascii") as file:  # noqa: PTH123
            return int(file.read())

    first = pid_of(marked)
    assert pid_of(marked, round=1) == first
    assert pid_of(marked, job_id="job_2") != first
    again = pid_of(marked)
    assert again != first
    assert pid_of(marked + b"# other\n") != again
    with pytest.raises(FedbiomedRoundError, match="ValueError"):
        run(worker, task, whoami)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (b"import nothing_of_this_name\nclass LinePlan: pass\n", "nothing_of_this_name"),
        (b"class LinePlan(:\n", "line 1"),
        (b"class Other: pass\n", "LinePlan"),
        (b"raise SystemExit(3)\n", "SystemExit|end the process|exit"),
        (plan_source(step="import sys; sys.exit(3)"), "SystemExit|end the process"),
        (plan_source(step="raise GeneratorExit"), r"end the process \(GeneratorExit\)"),
        (plan_source(step="raise KeyError('age')"), "training_routine.*KeyError.*age|KeyError.*age"),
        (plan_source(data="raise OSError('no such table')"), "training_data.*OSError.*no such table"),
        (plan_source(data="pd.read_csv(self.dataset_path)['age']"), "training_data.*KeyError.*age"),
        (plan_source(step="import numpy as np; np.ones(10**8)"), "memory.*600 MB|600 MB"),
        (plan_source(step="torch.ones(3 * 10**8)"), "memory.*600 MB|600 MB"),
        (plan_source(data="import os; os._exit(3)"), "exit code 3"),
        (plan_source(step="import os; os.kill(os.getpid(), 9)"), "signal 9"),
        (plan_source(step="import os; os.kill(os.getpid(), 11)"), "signal 11"),
        (plan_source(step="import os; os.closerange(3, 100)"), "ended by itself with exit code 1"),
        (
            plan_source(step="import os, threading; os.closerange(3, 100); threading.Event().wait(60)"),
            "closed the line from the training process",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_plan_does_wrong_is_told_in_a_sentence(worker, task, source, text):
    with pytest.raises(FedbiomedRoundError, match=f"(?s){text}") as caught:
        run(worker, task, source)
    assert "Traceback" not in str(caught.value)
    assert lives_on(worker, task)


def test_a_killed_training_process(worker, task, config):
    begun = threading.Event()
    endless = plan_source(
        routine="import threading\nwhile True:\n    threading.Event().wait(1.1)\n"
        "    history_monitor.add_scalar(metric={'Loss': 1.0}, iteration=1, epoch=1,"
        " train=True, test=False, test_on_local_updates=False, test_on_global_updates=False, total_samples=8, batch_samples=4,"
        " num_batches=2)"
    )
    reports = []

    def kill(report):
        reports.append(report)
        if not begun.is_set():
            begun.set()
            for process in children_of(config)[1]:
                os.kill(process.pid, signal.SIGKILL)

    with pytest.raises(WorkerError, match="signal 9"):
        run(worker, task, endless, on_progress=kill)
    assert reports[0].metrics == {"Loss": 1.0}
    assert reports[0].num_iterations == 2
    assert lives_on(worker, task)


def test_a_process_that_dies_between_two_rounds_is_replaced(worker, task, config):
    assert lives_on(worker, task)
    _, processes = children_of(config)
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=5)
    assert lives_on(worker, task)


def test_a_host_that_dies_is_replaced(worker, task, config):
    assert lives_on(worker, task)
    host, processes = children_of(config)
    host.kill()
    _, alive = psutil.wait_procs([host, *processes], timeout=5)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    assert lives_on(worker, task)


def test_the_time_limit(worker, task, config):
    with pytest.raises(WorkerError, match="longer than 1 s"):
        run(worker, task, plan_source(step="import threading; threading.Event().wait(60)"), limit_s=1.0)
    assert children_of(config)[1] == []
    assert lives_on(worker, task)


def test_a_round_is_stopped_from_outside(worker, task):
    stop = StopSignal()
    timer = threading.Timer(0.5, stop.set)
    timer.start()
    with pytest.raises(WorkerInterrupted):
        run(worker, task, plan_source(step="import threading; threading.Event().wait(60)"), stop=stop)
    timer.join()
    assert lives_on(worker, task)


def test_a_round_that_was_stopped_before_it_began(worker, task):
    stop = StopSignal()
    stop.set()
    with pytest.raises(WorkerInterrupted):
        run(worker, task, plan_source(step="import threading; threading.Event().wait(60)"), stop=stop)


def test_what_a_plan_starts_ends_with_it(worker, task, config):
    forks = plan_source(
        top="import os, threading",
        step="if os.fork() == 0:\n    os.setsid()\n    os.fork()\n    threading.Event().wait(600)\nraise ValueError('done')",
    )
    with pytest.raises(FedbiomedRoundError, match="done"):
        run(worker, task, forks)
    assert children_of(config)[1] == []
    assert lives_on(worker, task)


def test_secrets_do_not_reach_the_plan(worker, task):
    looks = plan_source(
        step="import os, pathlib\n"
        "seen = [pathlib.Path(f'/proc/{p}/environ').read_bytes() for p in (os.getpid(), os.getppid())]\n"
        "seen += [repr(dict(os.environ)).encode()]\n"
        "raise ValueError('found' if any(b's3cret-token' in text for text in seen) else 'nothing')"
    )
    with pytest.raises(FedbiomedRoundError, match="nothing"):
        run(worker, task, looks)


def test_no_network_where_the_system_allows_a_wall(worker, task, config):
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        calls = plan_source(
            step=f"import socket\nsocket.create_connection(('127.0.0.1', {listener.getsockname()[1]}), 2)\nraise ValueError('connected')"
        )
        with pytest.raises(FedbiomedRoundError) as caught:
            run(worker, task, calls)
    said = (config.log / "training.log").read_text(encoding="utf-8")
    assert "connected" not in str(caught.value) or "a wall to the network" in said


def test_nonsense_on_the_line_is_no_harm(worker, task):
    shouts = plan_source(
        step="import os\nfor d in range(3, 64):\n    try:\n        os.write(d, b'\\x00nonsense')\n    except OSError:\n        pass"
    )
    with pytest.raises(WorkerError, match="nonsense"):
        run(worker, task, shouts)
    assert lives_on(worker, task)


def test_nothing_is_left_when_the_worker_closes(task, tmp_path):
    config = node_config(tmp_path / "other")
    worker = Worker(config)
    assert lives_on(worker, task)
    host, processes = children_of(config)
    worker.close()
    worker.close()
    assert not any(process.is_running() for process in [host, *processes])
    with pytest.raises(WorkerInterrupted):
        run(worker, task)
