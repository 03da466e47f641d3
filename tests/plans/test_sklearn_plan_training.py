"""scikit-learn plans: iterations, reports, data, validation, files."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, mean_squared_error

from fedbiomed.common.constants import ProcessTypes
from fedbiomed.common.data import DataManager, NPDataLoader
from fedbiomed.common.exceptions import (
    FedbiomedDPControllerError,
    FedbiomedError,
    FedbiomedModelError,
    FedbiomedOptimizerError,
    FedbiomedTrainingError,
    FedbiomedTrainingPlanError,
)
from fedbiomed.common.metrics import MetricTypes
from fedbiomed.common.training_plans import FedSGDClassifier, FedSGDRegressor
from tests.support.monitors import Monitor
from tests.support.sklearn_variants import CLASSES_2, CLASSES_3, NUMBERS, REGRESSION, THREE, TWO, X, of, ready, trained, validate


def test_updates_and_dry_run_and_cap():
    assert [m["iteration"] for m in trained(*CLASSES_2, epochs=None, num_updates=5, log_interval=1)[1].heard] == [1, 2, 3, 4, 5]
    assert len(trained(*CLASSES_2, epochs=5, dry_run=True)[1].heard) == 1
    assert len(trained(*CLASSES_2, epochs=2, batch_maxnum=100, log_interval=1)[1].heard) == 6


def test_same_seed_gives_the_same_bits():
    shuffled = of(FedSGDClassifier, THREE, training_data=lambda self: DataManager(X, THREE, shuffle=True))
    first, second = (trained(shuffled, CLASSES_3[1], random_seed=4, epochs=3) for _ in range(2))
    assert first[1].heard == second[1].heard
    assert np.array_equal(first[0].model().coef_, second[0].model().coef_)


def test_training_begins_from_what_was_set():
    plan = ready(*REGRESSION, epochs=0)
    plan.set_model_params({"coef_": np.ones(3), "intercept_": np.ones(1)})
    plan.training_routine()
    assert plan.after_training_params(flatten=True) == [1.0] * 4


@pytest.mark.parametrize("strange", [2, -1, 0.5, np.nan])
def test_label_that_is_no_class_is_a_clear_error(strange):
    labels = TWO.astype(float)
    labels[7] = strange
    plan = ready(of(FedSGDClassifier, labels), CLASSES_2[1])
    with pytest.raises(FedbiomedTrainingError, match="labels must be integers from 0 to 1"):
        plan.training_routine()


@pytest.mark.parametrize("made", [FedSGDRegressor, FedSGDClassifier])
def test_targets_of_several_columns_are_a_clear_error(made):
    several = np.eye(2)[TWO]  # one-hot classes, or two numbers for each sample
    with pytest.raises(FedbiomedTrainingError, match=r"4 samples have targets of the shape \(4, 2\)"):
        trained(of(made, several), CLASSES_2[1])


@pytest.mark.parametrize("made", [FedSGDRegressor, FedSGDClassifier])
def test_missing_values_are_a_clear_error(made):
    rows = X.copy()
    rows[5, 1] = np.nan
    with pytest.raises(FedbiomedTrainingError, match="finite"):
        trained(of(made, TWO, rows), CLASSES_2[1])


def test_missing_targets_are_a_clear_error():
    numbers = NUMBERS.copy()
    numbers[2] = np.nan
    with pytest.raises(FedbiomedTrainingError, match="finite"):
        trained(of(FedSGDRegressor, numbers), REGRESSION[1])


def test_wrong_count_of_features_is_a_clear_error():
    with pytest.raises(FedbiomedError, match=r"\(4, 3\).*\(n, 5\)"):
        trained(CLASSES_2[0], {"n_features": 5, "n_classes": 2})


def test_targets_as_a_column_train_as_a_row_does():
    column = trained(of(FedSGDRegressor, NUMBERS.reshape(-1, 1)), REGRESSION[1])[0]
    assert np.array_equal(column.model().coef_, trained(*REGRESSION)[0].model().coef_)


def test_no_samples_is_a_clear_error():
    with pytest.raises(FedbiomedTrainingPlanError, match="no samples to train on"):
        ready(*REGRESSION, test_ratio=1.0).training_routine()


def test_gpu_is_passed_over():
    ready(*REGRESSION, use_gpu=True).training_routine(node_args={"gpu": True, "gpu_num": 3, "gpu_only": True})


def test_proximal_term_is_left_out_and_that_is_said(caplog):
    with_mu = trained(*REGRESSION, fedprox_mu=0.5)[0]
    assert "fedprox_mu is left out" in caplog.text
    assert np.array_equal(with_mu.model().coef_, trained(*REGRESSION)[0].model().coef_)


@pytest.mark.parametrize("warm", [True, False])
def test_warm_start_is_applied_and_changes_no_step(warm):
    plan = trained(CLASSES_2[0], {**CLASSES_2[1], "warm_start": warm}, epochs=2)[0]
    assert plan.model().get_params()["warm_start"] is warm
    assert np.array_equal(plan.model().coef_, trained(*CLASSES_2, epochs=2)[0].model().coef_)


def test_balanced_classes_are_refused_with_what_to_do():
    # the shares of the classes are those of a node, so `balanced` would be another loss on each
    with pytest.raises(FedbiomedModelError, match="balanced"):
        ready(CLASSES_2[0], {**CLASSES_2[1], "class_weight": "balanced"})


# --- pre-processing


def halved(loader):
    """The first half of the rows."""
    rows = len(loader.dataset) // 2
    return NPDataLoader(dataset=loader.dataset[:rows], target=loader.target[:rows], batch_size=2)


def test_preprocess_works_on_the_training_loader():
    plan, monitor = ready(*CLASSES_2), Monitor()
    plan.add_preprocess(halved, ProcessTypes.DATA_LOADER)
    plan.training_routine(history_monitor=monitor)
    assert {(m["total_samples"], m["batch_samples"], m["num_batches"]) for m in monitor.heard} == {(6, 2, 3)}


def test_preprocess_that_returns_something_else_is_refused():
    plan = ready(*CLASSES_2)
    plan.add_preprocess(list, ProcessTypes.DATA_LOADER)
    with pytest.raises(FedbiomedTrainingPlanError, match="must return a NPDataLoader, not a list"):
        plan.training_routine()


# --- what is refused


def test_differential_privacy_and_other_optimizers_are_refused():
    with pytest.raises(FedbiomedDPControllerError):
        ready(*REGRESSION, dp_args={"sigma": 0.1, "clip": 1.0})
    with pytest.raises(FedbiomedOptimizerError):
        ready(of(FedSGDRegressor, NUMBERS, init_optimizer=lambda self: "adam"), REGRESSION[1])
    ready(of(FedSGDRegressor, NUMBERS, init_optimizer=lambda self: None), REGRESSION[1])


# --- validation


def test_regressor_is_measured_by_the_mean_square_error():
    plan, _ = trained(*REGRESSION, test_ratio=0.5)
    (message,) = validate(plan, before_train=False)
    loader = plan.testing_data_loader
    wanted = mean_squared_error(loader.target, plan.model().predict(loader.dataset))
    assert message["metric"] == {"MEAN_SQUARE_ERROR": pytest.approx(wanted)}
    assert (message["epoch"], message["batch_samples"], message["num_batches"], message["total_samples"]) == (None, 6, 1, 6)
    assert (message["test_on_local_updates"], message["test_on_global_updates"]) == (True, False)


@pytest.mark.parametrize("made", [CLASSES_2, CLASSES_3])
def test_classifier_is_measured_by_its_accuracy(made):
    plan, _ = trained(*made, test_ratio=0.5)
    loader = plan.testing_data_loader
    wanted = accuracy_score(loader.target, plan.model().predict(loader.dataset))
    assert validate(plan)[0]["metric"] == {"ACCURACY": pytest.approx(wanted)}


def test_validation_before_any_training_works():
    assert validate(ready(*CLASSES_2, test_ratio=0.5))[0]["metric"].keys() == {"ACCURACY"}


def test_chosen_metric_is_used():
    plan, _ = trained(*CLASSES_3, test_ratio=0.5)
    assert validate(plan, MetricTypes.F1_SCORE, {"average": "macro"})[0]["metric"].keys() == {"F1_SCORE"}


def test_testing_step_sees_columns():
    shapes = []

    def testing_step(self, data, target):
        shapes.append((data.shape, target.shape))
        return {"right": (self.model().predict(data) == target.squeeze()).mean()}

    plan = ready(of(FedSGDClassifier, TWO, testing_step=testing_step), CLASSES_2[1], test_ratio=0.5)
    assert validate(plan)[0]["metric"].keys() == {"right"}
    assert shapes == [((6, 3), (6, 1))]


def test_validation_without_samples_is_a_clear_error():
    plan = ready(*CLASSES_2)
    assert len(plan.testing_data_loader) == 0
    with pytest.raises(FedbiomedTrainingPlanError, match="no samples to test on"):
        validate(plan)


# --- files


@pytest.mark.parametrize("made", [REGRESSION, CLASSES_2, CLASSES_3])
def test_exported_model_is_imported_again(made, tmp_path):
    source, target = trained(*made)[0], ready(*made)
    source.export_model(tmp_path / "model.joblib")
    target.import_model(str(tmp_path / "model.joblib"))
    assert np.array_equal(target.model().coef_, source.model().coef_)
    assert np.array_equal(target.model().predict(X), source.model().predict(X))
    target.training_routine()


def test_import_of_another_model_is_refused(tmp_path):
    trained(*REGRESSION)[0].export_model(tmp_path / "model.joblib")
    plan = ready(*CLASSES_2)
    with pytest.raises(FedbiomedModelError, match="SGDRegressor"):
        plan.import_model(tmp_path / "model.joblib")
    ready(CLASSES_3[0], CLASSES_3[1]).export_model(tmp_path / "three.joblib")
    with pytest.raises(FedbiomedModelError, match="shape"):
        plan.import_model(tmp_path / "three.joblib")


def test_import_of_no_model_is_refused(tmp_path):
    (tmp_path / "model.joblib").write_bytes(b"nothing")
    with pytest.raises(FedbiomedModelError):
        ready(*CLASSES_2).import_model(tmp_path / "model.joblib")
    with pytest.raises(FileNotFoundError):
        ready(*CLASSES_2).import_model(tmp_path / "nowhere.joblib")
