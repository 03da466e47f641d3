"""How the demo trains each of its two models: over all hospitals with a stop in the middle, at each alone, and pooled."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.metrics import accuracy_score, roc_auc_score

from fedbiomed.demo.hospitals import TAGS, Sites, diagnoses, preprocessing
from fedbiomed.demo.plans import BreastCancerClassifier, BreastCancerNetwork
from fedbiomed.demo.processes import Federation
from fedbiomed.researcher.aggregators.fedavg import FedAverage
from fedbiomed.researcher.experiment import Experiment
from fedbiomed.researcher.local_job import localJob
from fedbiomed.researcher.requests import Requests
from fedbiomed.researcher.secagg.secure_aggregation import SecureAggregation

_SEED = 42


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One model: its plan and how it is trained.

    Args:
        epochs: passes over a hospital's patients in each round.
    """

    name: str
    plan: type[Any]
    model_args: Mapping[str, Any]
    optimizer_args: Mapping[str, Any]
    epochs: int

    def training_args(self, epochs: int) -> dict[str, Any]:
        """Training arguments for so many epochs."""
        return {
            "epochs": epochs,
            "loader_args": {"batch_size": 16},
            "optimizer_args": dict(self.optimizer_args),
            "random_seed": _SEED,
        }


_LOGISTIC = {"n_features": 30, "n_classes": 2, "loss": "log_loss", "learning_rate": "constant", "eta0": 0.1, "alpha": 0.001}

NETWORK = Recipe(
    name="BreastCancerNetwork", plan=BreastCancerNetwork, model_args={**preprocessing(), "hidden": 8}, optimizer_args={"lr": 0.01}, epochs=3
)
CLASSIFIER = Recipe(
    name="BreastCancerClassifier",
    plan=BreastCancerClassifier,
    model_args={**preprocessing(), **_LOGISTIC},
    optimizer_args={},
    epochs=10,
)
RECIPES = (NETWORK, CLASSIFIER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What the nodes trained together.

    Args:
        score: accuracy and area under the ROC curve after the last round.
        curve: accuracy after each round.
        breakpoint_folder: from where the second half went on; None when there was only one round.
        experiment_folder: with all files of the experiment.
    """

    score: dict[str, float]
    curve: list[float]
    breakpoint_folder: Path | None
    experiment_folder: Path


def score(plan: Any, held_out: pd.DataFrame) -> dict[str, float]:
    """Accuracy and area under the ROC curve of a trained plan on patients that no node has seen."""
    scores, truth = plan.scores(held_out), diagnoses(held_out)
    return {"accuracy": round(float(accuracy_score(truth, scores > 0)), 4), "roc_auc": round(float(roc_auc_score(truth, scores)), 4)}


def train_together(  # noqa: PLR0917  a table of what the demo has
    recipe: Recipe, rounds: int, federation: Federation, requests: Requests, held_out: pd.DataFrame, secagg: SecureAggregation
) -> Trained:
    """Train over all hospitals: half of the rounds, then from the breakpoint to the end.

    Args:
        recipe: the model.
        rounds: of the federation.
        federation, requests: the hospitals, and the line to them.
        held_out: patients for the test.
        secagg: whether, and how, only sums of the hospitals' updates are seen.
    """
    experiment = Experiment(
        tags=list(TAGS),
        training_plan_class=recipe.plan,
        model_args=dict(recipe.model_args),
        training_args=recipe.training_args(recipe.epochs),
        aggregator=FedAverage(),
        round_limit=rounds,
        save_breakpoints=True,
        experimentation_folder=recipe.name,
        secagg=secagg,
        requests=requests,
    )
    folder = Path(experiment.experimentation_path())
    federation.register(Path(experiment.training_plan_file(display=False)), recipe.name)
    stop_after = rounds // 2
    resumed_from = None
    if stop_after:
        experiment.run(rounds=stop_after)
        resumed_from = folder / f"breakpoint_{stop_after - 1:04d}"
        experiment = Experiment.load_breakpoint(str(resumed_from), requests=requests)
    experiment.run()
    plan: Any = experiment.training_plan()
    curve = []
    for _, aggregated in sorted(experiment.aggregated_params().items()):
        plan.set_model_params(aggregated["params"])
        curve.append(score(plan, held_out))
    return Trained(score=curve[-1], curve=[point["accuracy"] for point in curve], breakpoint_folder=resumed_from, experiment_folder=folder)


def train_alone(recipe: Recipe, rounds: int, data: Path, held_out: pd.DataFrame) -> dict[str, float]:
    """Train on one file in this process, with as many epochs as a hospital does in all rounds."""
    job = localJob(
        dataset_path=str(data),
        training_plan_class=recipe.plan,
        training_args=recipe.training_args(recipe.epochs * rounds),
        model_args=dict(recipe.model_args),
    )
    job.start_training()
    return score(job.training_plan, held_out)


def compare(recipe: Recipe, rounds: int, sites: Sites, together: Trained) -> dict[str, Any]:
    """Each hospital alone, all together without moving data, and all data in one place."""
    return {
        "alone": [
            {"hospital": site.name, "patients": site.patients, **train_alone(recipe, rounds, site.path, sites.held_out)}
            for site in sites.hospitals
        ],
        "federated": {**together.score, "accuracy_per_round": together.curve},
        "pooled": train_alone(recipe, rounds, sites.pooled, sites.held_out),
    }
