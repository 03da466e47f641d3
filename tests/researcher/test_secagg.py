"""Settings and contexts of secure aggregation; its rounds are in `test_secagg_rounds.py`."""

import pytest

from fedbiomed.common.exceptions import FedbiomedSecaggError, FedbiomedSecureAggregationError
from fedbiomed.common.secagg.terms import Purpose
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.secagg import SecaggBiprimeContext, SecaggContext, SecaggServkeyContext, SecureAggregation
from fedbiomed.researcher.secagg.round_sum import Ranges

PARTIES = ["researcher_1", "node_1", "node_2"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FBM_RESEARCHER_DIR", str(tmp_path / "researcher"))


def test_defaults():
    secagg = SecureAggregation()
    assert (secagg.active, secagg.timeout, secagg.clipping_range) == (True, 10, None)
    assert (secagg.parties, secagg.job_id, secagg.biprime, secagg.servkey) == (None, None, None, None)
    assert secagg.activate(False) is False
    assert secagg.active is False
    assert secagg.train_arguments() == {
        "secagg_servkey_id": None,
        "secagg_biprime_id": None,
        "secagg_random": None,
        "secagg_clipping_range": None,
    }
    assert SecureAggregation(clipping_range=3).train_arguments()["secagg_clipping_range"] == 3


@pytest.mark.parametrize(
    "arguments",
    [
        {"active": 1},
        {"active": None},
        {"timeout": "10"},
        {"timeout": 1.5},
        {"timeout": True},
        {"timeout": -1},
        {"clipping_range": 1.0},
        {"clipping_range": 0},
        {"clipping_range": "3"},
        {"scheme": "other"},
        {"signed_survivors": True, "scheme": "joye_libert"},
        {"allow_two_nodes": 1},
        {"minimum_nodes": 1},
        {"signed_survivors": None},
        {"aux_clipping_range": 0},
        {"aux_clipping_range": 2.5},
        {"count_alike": "no"},
    ],
)
def test_wrong_settings_are_refused(arguments):
    with pytest.raises(FedbiomedSecureAggregationError, match=next(iter(arguments))):
        SecureAggregation(**arguments)


def test_each_range_grows_by_what_was_cut_of_it(caplog):
    own, given = SecureAggregation(), SecureAggregation(clipping_range=2, aux_clipping_range=3)
    for secagg in (own, given):
        secagg.take_clipped(5, {"node_1": {Purpose.AUX: 0.5, Purpose.WEIGHTS: 0.0}, "node_2": {Purpose.WEIGHTS: 0.0}})
    assert own.ranges == Ranges(16.0, 64.0)
    assert given.ranges == Ranges(2.0, 3.0)
    assert "cut 0.5 of its auxiliary variables to the clipping range 3; 12 would do, set it" in caplog.text
    assert "SecureAggregation(aux_clipping_range=12)" in caplog.text
    own.take_clipped(6, {"node_1": {Purpose.AUX: 0.0005, Purpose.WEIGHTS: 0.01}})
    assert own.ranges == Ranges(32.0, 64.0)
    again = SecureAggregation.load_state_breakpoint(own.save_state_breakpoint())
    assert (again.ranges, again.aux_clipping_range, again.count_alike) == (own.ranges, None, False)
    for wrong in (0, "x", True):
        state = own.save_state_breakpoint()
        state["options"]["aux_clip"] = wrong
        with pytest.raises(FedbiomedSecureAggregationError, match="clipping range in a breakpoint"):
            SecureAggregation.load_state_breakpoint(state)


def test_wrong_status_is_refused():
    secagg = SecureAggregation(active=False)
    with pytest.raises(FedbiomedSecureAggregationError, match="active"):
        secagg.activate("yes")
    assert secagg.active is False


def test_contexts_describe_what_is_to_be_agreed():
    servkey, biprime = SecaggServkeyContext(PARTIES, "job_1"), SecaggBiprimeContext(PARTIES)
    assert isinstance(servkey, SecaggContext)
    assert (servkey.parties, servkey.job_id, servkey.status, servkey.context) == (PARTIES, "job_1", False, None)
    assert (biprime.parties, biprime.job_id, biprime.status, biprime.context) == (PARTIES, None, False, None)
    assert servkey.secagg_id.startswith("secagg_")
    assert servkey.secagg_id != biprime.secagg_id
    servkey.parties.append("node_3")
    assert servkey.parties == PARTIES


def test_a_context_comes_back_from_a_breakpoint_as_it_was():
    servkey = SecaggServkeyContext(PARTIES, "job_1", {"threshold": 2})
    again = SecaggServkeyContext.load_state_breakpoint(servkey.save_state_breakpoint())
    assert (again.parties, again.job_id, again.secagg_id) == (PARTIES, "job_1", servkey.secagg_id)
    assert (again.status, again.context) == (True, {"threshold": 2})
    with pytest.raises(FedbiomedSecaggError, match="breakpoint"):
        SecaggBiprimeContext.load_state_breakpoint({"arguments": {}})


@pytest.mark.parametrize("parties", [[], PARTIES[:2], [*PARTIES, "node_1"], "abc", [1, 2, 3], None])
def test_wrong_parties_are_refused(parties):
    for make in (
        SecaggBiprimeContext,
        lambda given: SecaggServkeyContext(given, "job_1"),
        lambda given: SecureAggregation().setup(given, "j"),
    ):
        with pytest.raises(FedbiomedSecaggError, match="part"):
            make(parties)


@pytest.mark.parametrize("job_id", [None, "", 1])
def test_a_server_key_belongs_to_a_job(job_id):
    with pytest.raises(FedbiomedSecaggError, match="job_id"):
        SecaggServkeyContext(PARTIES, job_id)


def test_a_sum_opens_in_its_round_only():
    secagg = SecureAggregation()
    with pytest.raises(FedbiomedSecureAggregationError, match="opens only with the nodes"):
        secagg.aggregate(0, 10, {"node_1": [1]}, {})
    assert secagg.parties is None


@pytest.mark.parametrize("given", [True, SecureAggregation()])
def test_an_experiment_takes_it_in_one_line(given):
    experiment = Experiment(secagg=given)
    assert experiment.use_secagg() is True
    assert experiment.secagg_context() == (None, None)
    assert experiment.secagg.validation_arguments() is None
    assert Experiment().set_secagg(given).active is True


def test_switched_off_it_is_taken_everywhere():
    off = SecureAggregation(active=False, timeout=3, clipping_range=2)
    experiment = Experiment(secagg=off)
    assert experiment.secagg is off
    assert experiment.set_secagg(off) is off
    assert experiment.set_secagg(False).active is False
    assert experiment.set_use_secagg(use_secagg=False) is False
    assert experiment.set_use_secagg(False, timeout=5) is False
    assert experiment.secagg_context() == (None, None)
    assert experiment.set_use_secagg(use_secagg=True) is True


def test_a_breakpoint_keeps_the_settings():
    secagg = SecureAggregation(active=False, timeout=3, clipping_range=2)
    saved = secagg.save_state_breakpoint()
    assert saved["arguments"] == {"active": False, "timeout": 3, "clipping_range": 2}
    assert saved["options"]["scheme"] == "lom"
    assert saved["attributes"] == {"_biprime": None, "_servkey": None, "_job_id": None, "_parties": None}
    assert repr(SecureAggregation.load_state_breakpoint(saved)) == repr(secagg)
    with pytest.raises(FedbiomedSecureAggregationError, match="breakpoint"):
        SecureAggregation.load_state_breakpoint({"arguments": {"active": False}})
    for options in ({"other": 1}, {"clip": 0}, {"clip": "3"}):
        with pytest.raises(FedbiomedSecureAggregationError, match="breakpoint"):
            SecureAggregation.load_state_breakpoint({**saved, "options": options})
