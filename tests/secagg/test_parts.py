"""Parts of one round: each with a purpose, a range and a weighting of its own, opened together by one reveal."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from fedbiomed.common.declearn_library import NumpyVector
from fedbiomed.common.exceptions import FedbiomedOptimizerError, FedbiomedSecureAggregationError
from fedbiomed.common.optimizers.aux_sums import Summed
from fedbiomed.common.optimizers.optimizer import Optimizer
from fedbiomed.common.secagg.beside import flattened, nested
from fedbiomed.common.secagg.layout import Layout, Way
from fedbiomed.common.secagg.lom_node import Part
from fedbiomed.common.secagg.quantise import mean_of, quantise, weighted
from fedbiomed.common.secagg.terms import Purpose, Weighting
from fedbiomed.common.secagg.update import COUNTER_RANGE, without_rounding
from fedbiomed.researcher.server_optimizer import AuxTotal, aux_shapes
from tests.support.aux_modules import Summing
from tests.support.secagg import LomParties, ids, terms

SAMPLES = {"node_0": 3, "node_1": 5, "node_2": 9, "node_3": 2}
UPDATES = {node: np.linspace(-1, 1, 4) / (1 + index) for index, node in enumerate(ids(4))}


def parts_of(node: str, aux_weighting: Weighting) -> dict[Purpose, Part]:
    aux = Part({"a": 0.1 * UPDATES[node], "b": np.asarray(-2.0)}, 0.5, aux_weighting)
    return {Purpose.WEIGHTS: Part({"w": UPDATES[node]}, 2.0), Purpose.AUX: aux}


@pytest.mark.parametrize("weighting", list(Weighting))
@pytest.mark.parametrize("uploads", [ids(4), ids(4)[1:]], ids=["all", "one lost"])
def test_the_sums_of_all_parts_are_exact(weighting: Weighting, uploads: tuple[str, ...]) -> None:
    parties = LomParties(terms(4))
    server = parties.server({Purpose.WEIGHTS: 4, Purpose.AUX: 5})
    for node in uploads:
        server.take_upload(parties.nodes[node].protect(0, 0, parts_of(node, weighting), SAMPLES[node]))
    survivors = server.close()
    for node in survivors.nodes[-3:]:  # of four the first dies after its upload, and stays in both sums
        server.take_reveal(parties.nodes[node].reveal(server.notice(node)))
    sums = server.open()
    weights = {node: SAMPLES[node] if weighting is Weighting.SAMPLES else 1 for node in uploads}
    total, mean = mean_of(sums[Purpose.AUX], Layout((("a", (4,)), ("b", ()))), 0.5, 32, 400)
    assert total == sum(weights.values())
    wanted = sum(weights[node] * 0.1 * UPDATES[node] for node in uploads) / total
    np.testing.assert_allclose(mean["a"], wanted, rtol=0, atol=0.5 / 2**31)
    assert mean["b"] == pytest.approx(-0.5, abs=1e-9)  # cut to the range of this part
    assert {clipped[Purpose.AUX] for clipped in server.clipped.values()} == {1 / 5}
    total, mean = mean_of(sums[Purpose.WEIGHTS], Layout((("w", (4,)),)), 2.0, 32, 400)
    assert total == sum(SAMPLES[node] for node in uploads)
    np.testing.assert_allclose(mean["w"], sum(SAMPLES[node] * UPDATES[node] for node in uploads) / total, rtol=0, atol=2.0 / 2**31)


def test_each_purpose_has_masks_of_its_own() -> None:
    parties = LomParties(terms(3))
    part = Part({"w": np.linspace(-1, 1, 500)}, 1.0)
    upload = parties.nodes["node_0"].protect(0, 0, dict.fromkeys(Purpose, part), 7)
    plain = weighted(quantise(part.update, Layout.of(part.update), 1.0, 32).values, 7)
    masks = {purpose: vector - plain for purpose, vector in upload.vectors.items()}
    for one, other in itertools.combinations(masks, 2):
        assert not np.isin(masks[one], masks[other]).any()
        assert not (upload.vectors[one] == upload.vectors[other]).any()
    again = parties.nodes["node_0"].protect_again(0, 1)  # a purpose is used once per attempt
    assert not any(np.isin(again.vectors[purpose] - plain, masks[purpose]).any() for purpose in Purpose)


def test_two_weightings_open_for_three_nodes_or_more() -> None:
    # of two nodes, the sums of w_i u_i and of u_i would tell both updates
    parties = LomParties(terms(3))
    for round_, weighting in enumerate(Weighting):
        server = parties.server({Purpose.WEIGHTS: 4, Purpose.AUX: 5}, round_)
        for node in ids(2):
            server.take_upload(parties.nodes[node].protect(round_, 0, parts_of(node, weighting), SAMPLES[node]))
        notice = server.notice("node_0")  # a researcher who does not look
        if weighting is Weighting.SAMPLES:
            assert parties.nodes["node_0"].reveal(notice).digest == notice.digest
            continue
        for act in (parties.nodes["node_0"].reveal, parties.nodes["node_0"].consent):
            with pytest.raises(FedbiomedSecureAggregationError, match="would follow from two sums"):
                act(notice)


def test_a_part_that_cannot_be_rounded_uses_no_attempt_up() -> None:
    parties = LomParties(terms(3))
    wrong = {**parts_of("node_0", Weighting.NODES), Purpose.AUX: Part({"a": np.array([1.0, np.inf])}, 1.0)}
    with pytest.raises(FedbiomedSecureAggregationError, match="'a' holds NaN or infinite"):
        parties.nodes["node_0"].protect(0, 0, wrong, 3)
    assert parties.nodes["node_0"].protect(0, 0, parts_of("node_0", Weighting.NODES), 3).attempt == 0


def test_names_tell_where_values_belong() -> None:
    delta = NumpyVector({"a.b/c": np.ones(2)})
    content = {
        "model_weights": {"w": np.zeros(3)},
        "optim_aux_var": {"scaffold": {"delta": delta, "clients": ["an id"]}},
        "sent": {"scaffold": {"control": {"a.b/c": torch.ones(2)}}},
        "told": {"training_loss": 0.5},
    }
    flat = flattened(content)
    assert set(flat) == {"optimizer/scaffold/delta/a.b/c", "sent/scaffold/control/a.b/c", "told/training_loss"}
    assert nested(flat, "optimizer")["scaffold"].keys() == {"delta"}
    assert nested(flat, "optimizer")["scaffold"]["delta"].keys() == {"a.b/c"}
    assert nested(flat, "told") == {"training_loss": 0.5}
    assert flattened({"optim_aux_var": None, "told": {}}) == {}


def test_a_way_is_worked_out_by_parts() -> None:
    new, old = np.arange(6, dtype=np.float32).reshape(2, 3).T, np.ones((3, 2), np.float32)
    way = Way(new, old)
    assert (way.shape, way.size) == ((3, 2), 6)
    assert way[1:4].tolist() == (new - old).reshape(-1)[1:4].tolist()
    assert Layout.of({"w": way}).shapes == (("w", (3, 2)),)
    codes = [quantise({"w": value}, Layout.of({"w": value}), 8.0, 32).values.tolist() for value in (way, new - old)]
    assert codes[0] == codes[1]
    with pytest.raises(FedbiomedSecureAggregationError, match="real numbers"):
        quantise({"w": Way(new * 1j, old)}, Layout.of({"w": way}), 8.0, 32)


def test_counters_that_went_by_whole_steps_are_whole_again() -> None:
    step = 2 * COUNTER_RANGE / (2**32 - 1)
    found = without_rounding({"n": np.asarray(2 - step), "m": np.asarray([2.5, -3.0 + step / 2, 0.25])}, 32)
    assert found["n"] == 2
    assert found["m"].tolist() == [2.5, -3.0, 0.25]


def test_variables_of_a_module_of_the_users_own() -> None:
    optimizer = Optimizer(lr=1.0, modules=["momentum", Summing()])
    assert optimizer.summed_aux() == {"summing": {"total": Summed.VECTOR, "count": Summed.NUMBER}}
    like: dict[str, Any] = {"w": np.zeros(2, np.float32)}
    assert aux_shapes(optimizer, like) == {"optimizer/summing/total/w": (2,), "optimizer/summing/count": ()}
    assert aux_shapes(None, like) == {}
    total = AuxTotal(optimizer)
    total.take_sum({"summing": {"total": {"w": np.array([1.0, 2.0])}, "count": np.asarray(3.0)}}, ("node_0", "node_1"), like)
    total.hand_over()
    taken = optimizer._engine.modules[1].taken
    assert (taken.count, taken.total.coefs["w"].tolist(), taken.total.coefs["w"].dtype) == (3.0, [1.0, 2.0], np.float32)
    with pytest.raises(FedbiomedOptimizerError, match="module 'other'"):
        total.take_sum({"other": {"count": 1.0}}, (), like)
