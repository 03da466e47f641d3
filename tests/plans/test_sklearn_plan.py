"""scikit-learn plans: parameters, arguments, and steps as scikit-learn makes them."""

import copy
import warnings

import numpy as np
import pytest
from sklearn.linear_model import Perceptron, SGDClassifier, SGDRegressor

from fedbiomed.common.constants import TrainingPlans
from fedbiomed.common.exceptions import (
    FedbiomedModelError,
    FedbiomedTrainingPlanError,
)
from fedbiomed.common.training_plans import FedPerceptron, FedSGDRegressor
from tests.support.sklearn_variants import CLASSES_2, CLASSES_3, NUMBERS, REGRESSION, THREE, TWO, X, of, ready, trained

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


@pytest.mark.parametrize("label", [2, -1, "a", 0.5])
def test_weights_of_what_is_no_class_are_a_clear_error(label):
    weights = {0: 1.0, 1: 2.0, label: 3.0}  # all classes have one, so scikit-learn lets it pass
    with pytest.raises(FedbiomedModelError, match="class_weight"):
        ready(CLASSES_2[0], {**CLASSES_2[1], "class_weight": weights})


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
