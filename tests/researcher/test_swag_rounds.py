"""SWAG over real nodes; only the transports are in memory. Numbers are worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.exceptions import FedbiomedStrategyError, FedbiomedTrainerError
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.researcher.events import ModelTrainer, SWAGTrainer
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.strategies import DefaultStrategy, Strategy
from fedbiomed.researcher.swag_updates import SwagUpdates
from tests.support.memory_federation import TAGS
from tests.support.plans import LinePlan, SidePlan

NODES = ["node_0", "node_1", "node_2"]
NODE_COUNT = 3


class PacePlan(TorchTrainingPlan):
    """Each step adds 1, 2, 3 to the weight on the nodes of 30, 40, 50 rows; a file `fails` beside the data makes it fail."""

    def init_dependencies(self):
        return ["import pandas as pd", "import pathlib"]

    def init_model(self, model_args):
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        return model

    def init_optimizer(self, optimizer_args):
        return torch.optim.SGD(self.model().parameters(), lr=1.0)

    def training_data(self):
        table = pd.read_csv(self.dataset_path)  # noqa: F821  declared above
        self.rows = len(table)
        return DataManager(dataset=table[["x"]].to_numpy(), target=table[["y"]].to_numpy())

    def training_step(self, data, target):
        if (pathlib.Path(self.dataset_path).parent / "fails").exists():  # noqa: F821
            raise ValueError("in a bad mood")
        return -self.model().weight.sum() * (self.rows / 10 - 2)

    def testing_step(self, data, target):
        own = self.swag()
        return {"Rank": 0.0 if own is None else float(own.rank), "Loss": 1.0}


@pytest.fixture
def made(requests):
    def make(**changes):
        args = {"num_updates": 2, "loader_args": {"batch_size": 8}, "random_seed": 7}
        given = {"tags": TAGS, "training_plan_class": PacePlan, "training_args": {**args, **changes.pop("args", {})}, "requests": requests}
        return Experiment(**{**given, "show_progress": False, "trainer": SWAGTrainer(), **changes})

    return make


def events(experiment):
    return [(row.round, row.event, row.state) for row in experiment.history_transitions().itertuples()]


def number(values):
    return float(values["weight"].item())


def test_moments_over_nodes_by_hand(made, capsys):
    tested = {"test_ratio": 0.2, "test_on_global_updates": True}
    experiment = made(round_limit=2, args=tested)
    assert experiment.run(rounds=1) == 1
    # snapshots 1, 2 and 2, 4 and 3, 6: means 1.5, 3, 4.5, of squares 2.5, 10, 22.5; by 24, 32, 40 of 96 samples
    moments = experiment.trainer().moments
    assert number(moments.first) == pytest.approx((24 * 1.5 + 32 * 3 + 40 * 4.5) / 96)
    assert number(moments.second) == pytest.approx((24 * 2.5 + 32 * 10 + 40 * 22.5) / 96)
    assert (moments.nodes, moments.sample_sizes, moments.round) == (tuple(NODES), (24, 32, 40), 0)
    posterior = experiment.swag(seed=1)
    # within the nodes 0.25, 1, 2.25, and between them the variance of 1.5, 3, 4.5
    within = (24 * 0.25 + 32 * 1 + 40 * 2.25) / 96
    between = sum(size / 96 * (mean - number(moments.first)) ** 2 for size, mean in ((24, 1.5), (32, 3), (40, 4.5)))
    assert float(posterior.variance()["weight"]) == pytest.approx(within + between)
    assert experiment.trainer().swag.rank == 0, "deviations stay on the nodes"
    mean, spread = posterior.predict(torch.ones(1, 1), 400)
    assert float(mean) == pytest.approx(number(moments.first), abs=0.3)
    assert float(spread["variance"]) == pytest.approx(within + between, rel=0.2)
    assert experiment.run() == 1
    one = [("round started", "ongoing"), ("TrainingRoundFinished", "swag_round"), ("SWAGRoundFinished", "ongoing")]
    both = [*one, ("ModelTestFinished", "ongoing")]
    assert events(experiment) == [
        *((int(i > 0), *pair) for i, pair in enumerate(both)),
        *((1 + int(i > 0), *pair) for i, pair in enumerate(both)),
        (2, "finished", "completed"),
    ]
    # moments are no metrics; each node has kept its two deviations, of its own snapshots
    assert experiment.trainer().training.metrics[2] == {"Rank": 2.0, "Loss": 1.0}
    # the second round begins at the mean of 2, 4, 6
    begun = (24 * 2 + 32 * 4 + 40 * 6) / 96
    assert number(experiment.trainer().moments.first) == pytest.approx(begun + (24 * 1.5 + 32 * 3 + 40 * 4.5) / 96, rel=1e-6)
    assert not list(Path(experiment.experimentation_path()).glob("node_params_*"))
    experiment.info()
    assert "SWAGTrainer: completed" in capsys.readouterr().out


def test_deviations_stay_on_the_nodes(made, federation):
    args = {"test_ratio": 0.2, "test_on_local_updates": True}
    experiment = made(trainer=SWAGTrainer(delete_local_models_after_aggregation=False), nodes=NODES[:1], args=args)
    experiment.run(rounds=1)
    path = experiment.training_replies()[0][0]["params_path"]
    sent = Serializer.load(path)["sent"]["swag"]
    assert sent.keys() == {"first", "second", "snapshots"}
    assert sent["snapshots"] == 2
    assert {value.dtype for part in ("first", "second") for value in sent[part].values()} == {torch.float64}
    state = experiment.training_replies()[0][0]["state_id"]
    (kept,) = (federation.root / "node_0").rglob(f"optim_state_0_{state}")
    # snapshots 1, 2 and their running means 1, 1.5
    assert Serializer.load(kept)["kept"]["swag"]["deviations"]["weight"].flatten().tolist() == [0.0, 0.5]
    # on the node, after its training, the plan's own test saw a posterior of rank 2
    assert experiment.history.query("metric == 'VALIDATION ON LOCAL UPDATES/Rank'")["value"].tolist() == [2.0]


@pytest.mark.parametrize(
    ("trainer", "epochs", "first"),
    [
        (SWAGTrainer(start=2), None, 2.0),
        (SWAGTrainer(max_snapshots=1), None, 1.0),
        (SWAGTrainer(unit="epochs"), 2, 6.0),  # 4 batches of 30 rows: after 4 and 8 steps
        (SWAGTrainer(2, 3, "steps", None, 0), 2, 5.0),  # 2, 5, 8
    ],
)
def test_snapshots_are_taken_when_the_researcher_asks(made, trainer, epochs, first):
    args = {} if epochs is None else {"epochs": epochs, "num_updates": None}
    experiment = made(trainer=trainer, nodes=NODES[:1], args=args)
    experiment.run(rounds=1)
    assert number(experiment.trainer().moments.first) == pytest.approx(first)


def test_a_training_too_short_for_a_snapshot_is_told(made):
    experiment = made(trainer=SWAGTrainer(start=9), nodes=NODES[:1])
    with pytest.raises(FedbiomedStrategyError, match="first snapshot after 9 steps, this training ended after 2"):
        experiment.run(rounds=1)
    assert (experiment.trainer().training.state, experiment.round_current()) == ("error", 0)


class Losing(SWAGTrainer):
    """Loses so many of first moments, second moments and sample sizes on the way, in round 0."""

    left = (3, 3, 3)

    def updates(self, round_, sampled, strategy, aggregator, aux):
        updates = LosingUpdates(round_, sampled, strategy, aggregator, aux)
        updates.left = dict(zip(("first", "second", "sample_size"), self.left if not round_ else (3, 3, 3), strict=True))
        return updates


class LosingUpdates(SwagUpdates):
    """See `Losing`."""

    def moments_of(self, reply):
        return {part: value for part, value in super().moments_of(reply).items() if len(self.good) < self.left[part]}


@pytest.mark.parametrize("left", [(2, 2, 1), (2, 1, 1), (3, 2, 1), (1, 2, 2), (0, 0, 0)])
def test_any_mismatch_of_counts_is_an_error_with_a_state(made, requests, left):
    trainer = Losing()
    trainer.left = left
    nodes = NODES[: max(2, *left)]
    experiment = made(trainer=trainer, nodes=nodes, round_limit=2)
    said = f"{left[0]} first moments, {left[1]} second moments, {left[2]} sample sizes of {len(nodes)} nodes"
    with pytest.raises(FedbiomedTrainerError, match=said) as caught:
        experiment.run()
    assert f"{nodes[-1]}: no " in str(caught.value)
    assert "round 0" in str(caught.value)
    training = experiment.trainer().training
    assert (training.state, training.round, experiment.round_current()) == ("error", 1, 1), "the model of the round stays"
    assert ("SWAGRoundFinished", "error") in [pair[1:] for pair in events(experiment)]
    with pytest.raises(FedbiomedTrainerError, match="no posterior after 1 rounds, in the state error"):
        experiment.swag()
    experiment.breakpoint()
    resumed = Experiment.load_breakpoint(experiment.experimentation_path(), requests=requests, show_progress=False)
    assert (resumed.trainer().training.state, resumed.trainer().moments) == ("error", None)
    assert experiment.run() == 1
    assert (training.state, trainer.moments.round) == ("completed", 1)


def test_a_missing_node_is_not_waited_for_for_ever(made, federation):
    experiment = made(node_selection_strategy=DefaultStrategy(min_nodes=2))
    path = federation.data(1) / "fails"
    path.touch()
    try:
        experiment.run(rounds=1)
    finally:
        path.unlink()
    moments = experiment.trainer().moments
    assert moments.nodes == ("node_0", "node_2")
    assert number(moments.first) == pytest.approx((30 * 1.5 + 50 * 4.5) / 80)


def test_a_silent_node_closes_the_round_at_the_deadline(made, federation, tmp_path):
    with federation.researcher(tmp_path / "hurried", idle_timeout_s=3.0) as hurried:
        known = made(requests=hurried, nodes=NODES[:2]).training_data().data()
        data = {**known, "node_9": {**known["node_0"], "dataset_id": "dataset_nobody"}}
        experiment = made(requests=hurried, tags=None, training_data=data, node_selection_strategy=DefaultStrategy(min_nodes=2))
        experiment.run(rounds=1)
    assert experiment.trainer().moments.nodes == ("node_0", "node_1")
    assert "silent" in experiment.job().failures[0]["node_9"]
    assert experiment.trainer().training.state == "ongoing"


def test_it_goes_on_from_a_breakpoint_bit_for_bit(made, requests):
    args = {"epochs": 1, "num_updates": None}
    setting = {"training_plan_class": LinePlan, "save_breakpoints": True, "args": args, "round_limit": 3, "nodes": NODES[:2]}
    unbroken = made(trainer=SWAGTrainer(2, 2, max_snapshots=3), **setting)
    unbroken.run()
    broken = made(trainer=SWAGTrainer(2, 2, max_snapshots=3), **setting)
    broken.run(rounds=2)
    folder = Path(broken.experimentation_path()) / "breakpoint_0001"
    resumed = Experiment.load_breakpoint(folder, requests=requests, show_progress=False)
    trainer = resumed.trainer()
    assert trainer.schedule == broken.trainer().schedule
    assert same(trainer.moments, broken.trainer().moments)
    assert trainer.moments.nodes == tuple(NODES[:2])
    assert torch.equal(resumed.swag(seed=3).sample()["0.weight"], broken.swag(seed=3).sample()["0.weight"])
    assert resumed.run() == 1
    assert same(trainer.moments, unbroken.trainer().moments)
    one, other = (e.aggregated_params()[2]["params"] for e in (unbroken, resumed))
    assert all(np.asarray(one[name]).tobytes() == np.asarray(other[name]).tobytes() for name in one)
    assert events(resumed)[-3:] == events(unbroken)[-3:]


def same(one, other):
    parts = ((getattr(one, part), getattr(other, part)) for part in ("first", "second"))
    return all(a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a) for a, b in parts)


def test_what_does_not_go_with_it_is_refused(made):
    of_sklearn = {"training_plan_class": SidePlan, "model_args": {"n_features": 2, "n_classes": 2}}
    with pytest.raises(FedbiomedTrainerError, match="SidePlan is no torch plan"):
        made(**of_sklearn, args={"num_updates": None, "epochs": 1}).run(rounds=1)
    with pytest.raises(FedbiomedTrainerError, match="Refining judges by `refine`"):
        made(node_selection_strategy=Refining).run(rounds=1)


def test_without_its_trainer_nothing_is_lost_without_a_word(made):
    # moments of an ordinary model are not gathered, and asking for them is an error
    experiment = made(trainer=ModelTrainer.plain(), nodes=NODES[:1])
    with pytest.raises(FedbiomedTrainerError, match="a ModelTrainer does not; make the experiment with trainer=SWAGTrainer"):
        experiment.swag()
    with pytest.raises(FedbiomedTrainerError, match="no posterior after 0 rounds, in the state initial"):
        made().swag()


class Refining(Strategy):
    """Judges at the end."""

    def sample_nodes(self, round_i):
        return self._data.node_ids()

    def refine(self, training_replies, round_i):
        return super().refine(training_replies, round_i)
