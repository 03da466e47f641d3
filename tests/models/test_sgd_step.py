"""The batch step against scikit-learn itself: one `partial_fit` per sample from the same weights, then the mean."""

import itertools

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier, SGDRegressor

from fedbiomed.common.exceptions import FedbiomedModelError, FedbiomedTrainingError
from fedbiomed.common.models.sgd_step import LinearWeights, SGDRule, mean_step
from fedbiomed.common.models.sklearn_model import SGDClassifierModel, SGDRegressorModel

LOSSES = ["hinge", "squared_hinge", "perceptron", "log_loss", "modified_huber"]
DISTANCES = ["squared_error", "huber", "epsilon_insensitive", "squared_epsilon_insensitive"]
PENALTIES = [None, "l2", "l1", "elasticnet"]
RATES = ["constant", "optimal", "invscaling", "adaptive"]
FEATURES = 5


def reference_step(estimator, inputs, targets):
    """What the contract says, done literally: the weights after a batch."""
    start = estimator.coef_.copy(), estimator.intercept_.copy()
    coefs, intercepts = [], []
    for row, target in zip(inputs, targets, strict=True):
        estimator.coef_, estimator.intercept_ = start[0].copy(), start[1].copy()
        estimator.partial_fit(row.reshape(1, -1), [target])
        coefs.append(estimator.coef_)
        intercepts.append(estimator.intercept_)
    estimator.coef_, estimator.intercept_ = np.mean(coefs, axis=0), np.mean(intercepts, axis=0)


def batches(seed, kind, classes=0):
    generator = np.random.default_rng(seed)
    for size in (1, 5):
        inputs = generator.normal(size=(size, FEATURES))
        inputs[0, 1] = 0.0
        inputs[3:4] = 0.0
        targets = generator.integers(classes, size=size) if kind is SGDClassifier else generator.normal(size=size)
        yield inputs, targets


def agrees(kind, classes=0, **parameters):
    if kind is SGDClassifier:
        model = SGDClassifierModel(kind(**parameters), FEATURES, classes)
        reference = SGDClassifierModel(kind(**parameters), FEATURES, classes).model
    else:
        model = SGDRegressorModel(kind(**parameters), FEATURES)
        reference = SGDRegressorModel(kind(**parameters), FEATURES).model
    for inputs, targets in batches(3, kind, classes):
        model.train(inputs, targets.reshape(-1, 1))
        reference_step(reference, inputs, targets)
        np.testing.assert_allclose(model.model.coef_, reference.coef_, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(model.model.intercept_, reference.intercept_, rtol=1e-9, atol=1e-12)
        assert model.model.t_ == reference.t_
    assert np.abs(model.model.coef_).sum() > 0


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("loss", LOSSES + DISTANCES)
def test_a_classifier_steps_as_scikit_learn_does(loss, rate):
    for penalty, classes in itertools.product(PENALTIES, (2, 3)):
        agrees(SGDClassifier, classes, loss=loss, penalty=penalty, learning_rate=rate, eta0=0.05, alpha=0.02)


@pytest.mark.parametrize("loss", DISTANCES)
def test_a_regressor_steps_as_scikit_learn_does(loss):
    for penalty, rate in itertools.product(PENALTIES, RATES):
        agrees(SGDRegressor, loss=loss, penalty=penalty, learning_rate=rate, eta0=0.05, alpha=0.02, epsilon=0.2)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("rate", ["pa1", "pa2"])
def test_passive_aggressive_rates(rate):
    agrees(SGDClassifier, 3, loss="hinge", penalty=None, learning_rate=rate, eta0=0.3)
    agrees(SGDClassifier, 2, loss="hinge", penalty="l2", learning_rate=rate, eta0=0.3, alpha=0.02)
    agrees(SGDRegressor, loss="epsilon_insensitive", penalty=None, learning_rate=rate, eta0=0.3)


def test_weights_of_classes_and_no_intercept():
    agrees(SGDClassifier, 2, class_weight={0: 3.0, 1: 0.5})
    agrees(SGDClassifier, 3, class_weight={1: 2.0}, fit_intercept=False)


def test_large_steps_that_penalties_would_turn_round():
    agrees(SGDRegressor, penalty="l2", learning_rate="constant", eta0=2.0, alpha=1.0)
    agrees(SGDClassifier, 2, penalty="elasticnet", learning_rate="constant", eta0=2.0, alpha=1.0, l1_ratio=0.5)


def test_the_loss_is_that_before_the_step():
    # weights 0: the hinge loss of each sample is 1, the squared error of targets 2 and 4 is (4/2 + 16/2) / 2 = 5
    classifier = SGDClassifierModel(SGDClassifier(), 1, 2)
    assert classifier.train(np.array([[1.0], [2.0]]), np.array([0, 1])) == 1.0
    regressor = SGDRegressorModel(SGDRegressor(), 1)
    assert regressor.train(np.array([[1.0], [1.0]]), np.array([2.0, 4.0])) == 5.0
    assert classifier.loss_name == "hinge"
    assert regressor.loss_name == "squared_error"


@pytest.mark.parametrize("loss", LOSSES + DISTANCES)
@pytest.mark.parametrize("score", [-2.3, -0.4, 0.15, 0.7, 1.05, 3.1])
def test_the_step_follows_the_slope_of_the_loss(loss, score):
    rule = SGDRule(
        loss=loss, penalty=None, alpha=0.1, l1_ratio=0.0, fit_intercept=True, learning_rate="constant", eta0=1.0, power_t=0.5, epsilon=0.1
    )

    def at(intercept):
        one = np.ones((1, 1))
        return mean_step(rule, LinearWeights(np.zeros((1, 1)), np.array([intercept])), np.zeros((1, 1)), one, importance=one, step=1)

    slope = (at(score + 1e-6)[1] - at(score - 1e-6)[1]) / 2e-6
    assert at(score)[0].intercept[0] - score == pytest.approx(-slope, abs=1e-6)


def test_a_batch_of_one_by_hand():
    # squared error, rate 0.1, no penalty: w = 0 + 0.1 * (3 - 0) * 2 = 0.6, b = 0.1 * 3 = 0.3
    model = SGDRegressorModel(SGDRegressor(penalty=None, learning_rate="constant", eta0=0.1), 1)
    model.train(np.array([[2.0]]), np.array([[3.0]]))
    assert model.get_weights()["coef_"] == pytest.approx([0.6])
    assert model.get_weights()["intercept_"] == pytest.approx([0.3])


@pytest.mark.parametrize(
    "parameters",
    [{"loss": "nonsense"}, {"penalty": "l7"}, {"alpha": -1.0}, {"learning_rate": "fast"}, {"early_stopping": True}, {"average": True},
     {"class_weight": "balanced"}, {"loss": 3}, {"eta0": "0.1"}],
    ids=str,
)  # fmt: skip
def test_hyper_parameters_that_are_refused(parameters):
    with pytest.raises(FedbiomedModelError, match=next(iter(parameters))):
        SGDClassifierModel(SGDClassifier(**parameters), 2, 2)


def test_batches_that_are_refused():
    model = SGDClassifierModel(SGDClassifier(), 2, 3)
    with pytest.raises(FedbiomedTrainingError, match=r"0 to 2 \(n_classes\), found .*3"):
        model.train(np.ones((2, 2)), np.array([0, 3]))
    with pytest.raises(FedbiomedTrainingError, match="n_features"):
        model.train(np.ones((2, 3)), np.array([0, 1]))
    with pytest.raises(FedbiomedTrainingError, match="NaN"):
        model.train(np.array([[np.nan, 1.0]]), np.array([0]))
    assert not model.get_weights()["coef_"].any()
