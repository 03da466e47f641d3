"""`fedbiomed doctor`: every hop, with a message and a file."""

import json

from tests.support.federation import command
from tests.support.node_cli import here


def test_all_hops_to_a_running_network(network):
    host, port = network.mqtt_address
    answer = command("doctor", "--broker", f"{host}:{port}", "--repository", network.http_url, "--json")
    findings = {finding["check"]: finding for finding in json.loads(answer.stdout)}
    assert answer.returncode == 0, answer.stdout
    assert list(findings) == ["libraries", "torch", "disk", "broker", "login", "repository", "clock"]
    assert "takes connections" in findings["broker"]["found"]
    assert "delivers a message" in findings["login"]["found"]
    assert {finding["remedy"] for finding in findings.values()} == {""}
    assert "gives it back" in findings["repository"]["found"]


def test_the_hops_that_fail_are_named(network):
    host, port = network.mqtt_address
    answer = here("doctor", "--broker", f"{host}:{port}", "--repository", f"http://{host}:1")
    assert answer.returncode == 1
    assert "2 of 7 checks failed: repository, clock" in answer.stderr
    assert "-> start it (`fedbiomed network start`" in answer.stdout


def test_every_failure_has_a_remedy(tmp_path):
    answer = here("doctor", "--broker", "127.0.0.1:1", "--repository", "http://127.0.0.1:1", "--json", cwd=tmp_path)
    failed = {finding["check"]: finding["remedy"] for finding in json.loads(answer.stdout) if not finding["ok"]}
    assert list(failed) == ["broker", "login", "repository", "clock"]
    assert all(failed.values())


def test_help_answers_for_every_command():
    for words in ([], ["network", "start"], ["node", "create"], ["experiment", "resume"], ["researcher", "create"], ["doctor"], ["demo"]):
        answer = here(*words, "--help")
        assert answer.returncode == 0
        assert "fedbiomed" in answer.stdout


def test_an_unknown_command_is_refused():
    answer = command("nonsense")
    assert answer.returncode == 2
    assert "nonsense" in answer.stderr
