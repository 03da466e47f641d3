"""Principal components of all rows, from those of each node's."""

import numpy as np
import pytest
import torch

from fedbiomed.common.data.data_manager import DataManager
from fedbiomed.common.exceptions import AggregationError, FedbiomedAggregatorError, FedbiomedExperimentError
from fedbiomed.common.training_plans.pca_plan import PCATrainingPlan
from fedbiomed.researcher.aggregators import FedPCA
from fedbiomed.researcher.aggregators.fedpca import merged_components, with_signs


class Axes(PCATrainingPlan):
    """Of columns x and y."""

    def init_dependencies(self):
        return ["import pandas as pd", "from fedbiomed.common.training_plans import PCATrainingPlan"]

    def training_data(self):
        rows = pd.read_csv(self.dataset_path)[["x", "y"]].to_numpy()  # noqa: F821  declared above
        return DataManager(dataset=rows, target=rows[:, :1])


EXPERIMENT = {
    "training_plan_class": Axes,
    "aggregator": FedPCA,
    "model_args": {"n_features": 2, "n_components": 2},
    "training_args": {"epochs": 1, "loader_args": {"batch_size": 16}},
}


def update(vectors, values):
    values = np.asarray(values, dtype=np.float64)
    return {"components": np.asarray(vectors, dtype=np.float64), "singular_values": values, "sum_of_squares": np.array((values**2).sum())}


@pytest.mark.parametrize("method", ["svd", "qr"])
def test_squares_of_singular_values_add_up_along_one_axis(method):
    # e1 with 2 and e1 with 1: sqrt(2^2 + 1^2) = sqrt 5
    merged = FedPCA(method).aggregate({"a": update([[1, 0]], [2]), "b": update([[1, 0]], [1])}, {"a": 0.9, "b": 0.1})
    assert merged["singular_values"] == pytest.approx([5**0.5])
    assert merged["components"][0] == pytest.approx([1, 0])
    assert merged["sum_of_squares"] == 5


@pytest.mark.parametrize("method", ["svd", "qr"])
def test_parts_give_what_all_rows_give(method):
    rows = np.random.default_rng(0).normal(size=(60, 5)) * np.arange(5, 0, -1)
    parts = []
    for part in np.split(rows, [15, 40]):
        _, values, vectors = np.linalg.svd(part, full_matrices=False)
        parts.append((vectors, values))
    vectors, values = merged_components(parts, method)
    _, expected, axes = np.linalg.svd(rows, full_matrices=False)
    assert values == pytest.approx(expected, rel=1e-12)
    assert np.allclose(vectors, with_signs(axes), atol=1e-10)


def test_through_nodes_they_are_those_of_all_rows(made, federation):
    experiment = made()
    assert experiment.run(rounds=1) == 1
    files = [federation.data(index) / "rows.csv" for index in range(2)]
    tables = [np.genfromtxt(file, delimiter=",", names=True) for file in files]
    rows = np.concatenate([np.column_stack([table["x"], table["y"]]) for table in tables])
    _, values, vectors = np.linalg.svd(rows, full_matrices=False)
    model = experiment.training_plan().model()
    assert np.allclose(model.singular_values.numpy(), values, rtol=1e-5)
    assert np.allclose(model.components.numpy(), with_signs(vectors), atol=1e-5)
    assert model.explained_variance_ratio().sum().item() == pytest.approx(1.0, rel=1e-5)
    assert torch.allclose(model(torch.as_tensor(rows)) @ model.components, torch.as_tensor(rows), atol=1e-4)


def test_a_node_with_fewer_rows_than_components_says_so(made):
    experiment = made(training_args={"epochs": 1, "test_ratio": 0.98})
    with pytest.raises(FedbiomedExperimentError, match=r"2 components of 2 columns need .* found \(1, 2\)"):
        experiment.run(rounds=1)


def test_what_does_not_fit_is_refused():
    with pytest.raises(FedbiomedAggregatorError, match="one of svd, qr, not 'eig'"):
        FedPCA("eig")
    for wrong in ({"components": np.eye(2)}, update(np.eye(2), [1.0]), update(np.eye(2), [1.0, -1.0])):
        aggregator = FedPCA()
        aggregator.begin(0)
        with pytest.raises(AggregationError, match="the update of a must hold"):
            aggregator.add("a", wrong, 1)
