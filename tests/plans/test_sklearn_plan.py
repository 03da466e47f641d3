"""Plans on scikit-learn: parameters, the update rule against scikit-learn's own, validation."""

import copy
import warnings

import numpy as np
import pytest
from sklearn.linear_model import Perceptron, SGDClassifier, SGDRegressor
from sklearn.metrics import accuracy_score, mean_squared_error

from fedbiomed.common.constants import ProcessTypes, TrainingPlans
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
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans import FedPerceptron, FedSGDClassifier, FedSGDRegressor
from tests.support.monitors import Monitor

GENERATOR = np.random.default_rng(20)
X = GENERATOR.normal(size=(12, 3))
TWO = np.array([0, 1] * 6)
THREE = np.array([0, 1, 2] * 4)
NUMBERS = X @ np.array([1.0, -2.0, 0.5]) + 0.3


def of(kind, target, inputs=X, **members):
    """A plan class of a kind on given data."""
    return type("Variant", (kind,), {"training_data": lambda self: DataManager(inputs, target), **members})


CLASSES_2 = (of(FedSGDClassifier, TWO), {"n_features": 3, "n_classes": 2})
CLASSES_3 = (of(FedSGDClassifier, THREE), {"n_features": 3, "n_classes": 3})
REGRESSION = (of(FedSGDRegressor, NUMBERS), {"n_features": 3})


def ready(plan_class, model_args, *, test_ratio=0.0, batch_size=4, **args):
    plan = plan_class()
    loader_args = {} if batch_size is None else {"batch_size": batch_size}
    given = TrainingArgs({"epochs": 1, "loader_args": loader_args, **args}, only_required=False)
    plan.post_init(model_args, given)
    manager = plan.training_data()
    manager.extend_loader_args(given.loader_arguments())
    manager.load(tp_type=plan.type())
    plan.set_data_loaders(*manager.split(test_ratio, seed=0))
    return plan


def trained(plan_class, model_args, **args):
    plan, monitor = ready(plan_class, model_args, **args), Monitor()
    plan.training_routine(history_monitor=monitor)
    return plan, monitor


def validate(plan, metric=None, metric_args=None, *, before_train=True):
    monitor = Monitor()
    plan.testing_routine(metric=metric, metric_args=metric_args or {}, history_monitor=monitor, before_train=before_train)
    return monitor.heard


# --- parameters


@pytest.mark.parametrize(("made", "intercept", "coef"), [(REGRESSION, (1,), (3,)), (CLASSES_2, (1,), (1, 3)), (CLASSES_3, (3,), (3, 3))])
def test_parameters_begin_at_zero_in_their_shapes(made, intercept, coef):
    params = ready(*made).get_model_params()
    assert list(params) == ["intercept_", "coef_"]
    assert (params["intercept_"].shape, params["coef_"].shape) == (intercept, coef)
    assert not params["intercept_"].any()
    assert not params["coef_"].any()


@pytest.mark.parametrize("made", [REGRESSION, CLASSES_2, CLASSES_3])
def test_prediction_works_before_training(made):
    assert ready(*made).model().predict(X).shape == (12,)


def test_classes_are_the_integers():
    assert ready(*CLASSES_3).model().classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize("made", [REGRESSION, CLASSES_2, CLASSES_3])
def test_parameters_are_copies_both_ways(made):
    plan = ready(*made)
    given = {name: value + 1.0 for name, value in plan.get_model_params().items()}
    plan.set_model_params(given)
    given["coef_"][:] = 7.0
    plan.get_model_params()["coef_"][:] = 8.0
    assert (plan.model().coef_ == 1.0).all()
    assert plan.after_training_params(flatten=True) == [1.0] * (given["coef_"].size + given["intercept_"].size)


@pytest.mark.parametrize("wrong", [{"coef_": np.zeros(4), "intercept_": np.zeros(1)}, {"coef_": np.zeros(3)}, {}, None, {"a": 1}])
def test_parameters_of_another_shape_or_name_are_refused(wrong):
    plan = ready(*REGRESSION)
    with pytest.raises(FedbiomedModelError):
        plan.set_model_params(wrong)
    assert not plan.model().coef_.any()


def test_type_and_optimizer():
    plan = ready(*REGRESSION)
    assert plan.type() is TrainingPlans.SkLearnTrainingPlan
    assert plan.optimizer().optimizer is None


# --- model_args


def test_caller_s_model_args_are_not_changed():
    given = {"n_features": 3, "n_classes": 2, "alpha": 0.01, "model": "Perceptron"}
    before = copy.deepcopy(given)
    trained(of(FedPerceptron, TWO), given)
    assert given == before


def test_hyper_parameters_are_applied_and_others_passed_over():
    args = {"max_iter": 7, "tol": 0.5, "eta0": 0.25, "alpha": 0.01, "random_state": 5, "loss": "log_loss", "penalty": "l1", "model": "x"}
    found = ready(CLASSES_2[0], {**CLASSES_2[1], **args}).model().get_params()
    assert {name: found[name] for name in args if name != "model"} == {name: args[name] for name in args if name != "model"}


@pytest.mark.parametrize("made", [REGRESSION, CLASSES_2])
def test_verbose_is_one_unless_told_otherwise_and_prints_nothing(made, capfd):
    assert trained(*made)[0].model().verbose == 1
    assert trained(made[0], {**made[1], "verbose": 0})[0].model().verbose == 0
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", ["n_features", "n_classes"])
@pytest.mark.parametrize("wrong", [None, "3", 3.0, True, 0, -1, 1])
def test_counts_are_required(name, wrong):
    if name == "n_features" and wrong == 1 and wrong is not True:
        return  # one feature is fine
    args = {**CLASSES_2[1], name: wrong}
    with pytest.raises(FedbiomedTrainingPlanError, match=rf"model_args must hold '{name}', an integer"):
        ready(CLASSES_2[0], args)
    del args[name]
    with pytest.raises(FedbiomedTrainingPlanError, match=rf"model_args must hold '{name}'"):
        ready(CLASSES_2[0], args)


@pytest.mark.parametrize("wrong", [{"loss": "no such loss"}, {"alpha": -1}, {"penalty": 3}, {"eta0": "a"}, {"class_weight": {5: 1.0}}])
def test_hyper_parameters_that_scikit_learn_refuses_are_a_clear_error(wrong):
    with pytest.raises(FedbiomedModelError):
        ready(CLASSES_2[0], {**CLASSES_2[1], **wrong})


def test_averaging_and_early_stopping_are_refused():
    with pytest.raises(FedbiomedModelError, match="average"):
        ready(CLASSES_2[0], {**CLASSES_2[1], "average": True})
    with pytest.raises(FedbiomedModelError, match="early_stopping"):
        ready(CLASSES_2[0], {**CLASSES_2[1], "early_stopping": True})


def test_perceptron_takes_the_perceptron_s_defaults():
    found = ready(of(FedPerceptron, TWO), {"n_features": 3, "n_classes": 2}).model()
    assert isinstance(found, SGDClassifier)
    params, usual = found.get_params(), Perceptron().get_params()
    assert (params["loss"], params["learning_rate"]) == ("perceptron", "optimal")
    for name in ("penalty", "eta0", "random_state", "alpha", "tol", "max_iter", "fit_intercept", "shuffle"):
        assert params[name] == usual[name], name
    assert (params["penalty"], params["eta0"], params["random_state"]) == (None, 1.0, 0)


def test_perceptron_keeps_what_the_user_gave():
    args = {"n_features": 3, "n_classes": 2, "penalty": "l1", "eta0": 0.5, "loss": "hinge"}
    found = ready(of(FedPerceptron, TWO), args).model().get_params()
    assert (found["penalty"], found["eta0"], found["loss"]) == ("l1", 0.5, "perceptron")


# --- the update rule


def by_scikit_learn(estimator, inputs, target, batch_size, epochs=1):
    """Weights after the mean of per-sample `partial_fit` displacements, batch by batch."""
    classes = {} if target.dtype.kind == "f" else {"classes": np.unique(target)}
    estimator.partial_fit(np.zeros((1, inputs.shape[1])), target[:1], **classes)
    coef, intercept = np.zeros_like(estimator.coef_), np.zeros_like(estimator.intercept_)
    steps = 1.0
    for _ in range(epochs):
        for first in range(0, len(inputs), batch_size):
            moved = []
            for row in range(first, min(first + batch_size, len(inputs))):
                estimator.coef_, estimator.intercept_, estimator.t_ = coef.copy(), intercept.copy(), steps
                estimator.partial_fit(inputs[row : row + 1], target[row : row + 1])
                moved.append((estimator.coef_.copy(), estimator.intercept_.copy()))
                steps += 1
            coef, intercept = (np.mean([pair[i] for pair in moved], axis=0) for i in (0, 1))
    return coef, intercept


LOSSES_OF_CLASSES = ("hinge", "log_loss", "modified_huber", "squared_hinge", "perceptron", "squared_error", "huber", "epsilon_insensitive")
LOSSES_OF_NUMBERS = ("squared_error", "huber", "epsilon_insensitive", "squared_epsilon_insensitive")
RULES = [
    {},
    {"learning_rate": "constant", "eta0": 0.05, "penalty": "l1", "alpha": 0.01},
    {"learning_rate": "invscaling", "eta0": 0.1, "penalty": "elasticnet", "l1_ratio": 0.4, "alpha": 0.01},
    {"learning_rate": "adaptive", "eta0": 0.05, "penalty": None, "fit_intercept": False},
]


def assert_same_rule(plan_class, model_args, estimator, target, batch_size):
    plan, _ = trained(plan_class, model_args, batch_size=batch_size, epochs=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        coef, intercept = by_scikit_learn(estimator, X, target, batch_size, epochs=2)
    np.testing.assert_allclose(plan.model().coef_, coef, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(plan.model().intercept_, intercept, rtol=1e-9, atol=1e-12)
    assert plan.model().n_iter_ == 1


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("loss", LOSSES_OF_CLASSES)
@pytest.mark.parametrize("made", [CLASSES_2, CLASSES_3])
def test_classifier_moves_as_scikit_learn_sample_by_sample(made, loss, rule):
    target = TWO if made is CLASSES_2 else THREE
    estimator = SGDClassifier(loss=loss, **rule)
    assert_same_rule(made[0], {**made[1], "loss": loss, **rule}, estimator, target, 4)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("loss", LOSSES_OF_NUMBERS)
@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_regressor_moves_as_scikit_learn_sample_by_sample(loss, rule, batch_size):
    assert_same_rule(REGRESSION[0], {**REGRESSION[1], "loss": loss, **rule}, SGDRegressor(loss=loss, **rule), NUMBERS, batch_size)


@pytest.mark.parametrize("weights", [{0: 3.0, 1: 0.5}, {1: 4.0}])
def test_weights_of_classes_count_as_in_scikit_learn(weights):
    args = {**CLASSES_2[1], "class_weight": weights}
    assert_same_rule(CLASSES_2[0], args, SGDClassifier(class_weight=weights), TWO, 4)


def test_perceptron_moves_as_scikit_learn():
    estimator = SGDClassifier(loss="perceptron", penalty=None, eta0=1.0, random_state=0)
    assert_same_rule(of(FedPerceptron, THREE), {"n_features": 3, "n_classes": 3}, estimator, THREE, 4)


def test_one_step_worked_out_by_hand():
    # constant rate 0.1, squared error, no penalty, from 0: residuals y; displacement of coef = 0.1 * mean(y x), intercept 0.1 * mean(y)
    # x = 1, 3; y = 2, 4: coef 0.1 * (2 + 12) / 2 = 0.7; intercept 0.1 * 3 = 0.3; loss = mean(y^2) / 2 = (4 + 16) / 4 = 5
    plan_class = of(FedSGDRegressor, np.array([2.0, 4.0]), np.array([[1.0], [3.0]]))
    args = {"n_features": 1, "learning_rate": "constant", "eta0": 0.1, "penalty": None}
    plan, monitor = trained(plan_class, args, batch_size=2)
    assert plan.model().coef_ == pytest.approx([0.7])
    assert plan.model().intercept_ == pytest.approx([0.3])
    assert monitor.heard[0]["metric"] == {"Loss squared_error": pytest.approx(5.0)}


# --- training


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (REGRESSION, "Loss squared_error"),
        (CLASSES_2, "Loss hinge"),
        ((CLASSES_3[0], {**CLASSES_3[1], "loss": "log_loss"}), "Loss log_loss"),
        ((of(FedPerceptron, TWO), CLASSES_2[1]), "Loss perceptron"),
    ],
)
def test_loss_is_reported_by_its_name(made, name):
    heard = trained(*made)[1].heard
    assert [list(message["metric"]) for message in heard] == [[name], [name]]
    assert [(m["epoch"], m["iteration"], m["num_samples_trained"], m["total_samples"]) for m in heard] == [(1, 1, 4, 12), (1, 3, 12, 12)]


def test_batch_size_is_one_where_none_is_given():
    heard = trained(*CLASSES_2, batch_size=None, log_interval=1)[1].heard
    assert [message["batch_samples"] for message in heard] == [1] * 12


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
