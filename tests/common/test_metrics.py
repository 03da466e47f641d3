"""Metrics: names in any case, numbers worked out by hand, shapes that plans give."""

import numpy as np
import pytest
import torch

from fedbiomed.common.exceptions import FedbiomedMetricError
from fedbiomed.common.metrics import MetricCategory, Metrics, MetricTypes

TRUE = np.array([0, 0, 1, 1, 1])
PREDICTED = np.array([0, 1, 1, 1, 0])
# label 0 is the positive one: true positives 1, false positives 1, false negatives 1
BINARY = {"ACCURACY": 3 / 5, "PRECISION": 1 / 2, "RECALL": 1 / 2, "F1_SCORE": 1 / 2}


def evaluate(true, predicted, name, **options):
    return Metrics().evaluate(true, predicted, MetricTypes[name], **options)


def test_names_are_found_in_any_case_and_nothing_else_is():
    assert MetricTypes.get_all_metrics() == [
        "ACCURACY",
        "F1_SCORE",
        "PRECISION",
        "RECALL",
        "MEAN_SQUARE_ERROR",
        "MEAN_ABSOLUTE_ERROR",
        "EXPLAINED_VARIANCE",
    ]
    for metric in MetricTypes:
        assert MetricTypes.get_metric_type_by_name(metric.name) is metric
        assert MetricTypes.get_metric_type_by_name(metric.name.lower()) is metric
    for name in ("ACURACY", "", None, 3):
        with pytest.raises(FedbiomedMetricError, match=r"FB611.*no metric is called .*there are ACCURACY, F1_SCORE"):
            MetricTypes.get_metric_type_by_name(name)
    assert MetricTypes.RECALL.metric_category() is MetricCategory.CLASSIFICATION_LABELS
    assert MetricTypes.EXPLAINED_VARIANCE.metric_category() is MetricCategory.REGRESSION


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize(
    ("true", "predicted"),
    [
        (TRUE, PREDICTED),
        (TRUE[:, None], PREDICTED[:, None]),
        (TRUE[None, :], PREDICTED),
        (TRUE.astype(float), PREDICTED * 0.6 + 0.2),  # scores 0.2 and 0.8, over 0.5 is class 1
        (TRUE, np.stack([1 - PREDICTED, PREDICTED], axis=1) * 2.5),  # scores per class
        (np.eye(2)[TRUE], np.eye(2)[PREDICTED]),
        (torch.from_numpy(TRUE), torch.from_numpy(PREDICTED).float().requires_grad_()),
        (TRUE.tolist(), PREDICTED.tolist()),
    ],
    ids=["labels", "columns", "row", "scores", "scores per class", "one-hot", "tensors", "lists"],
)
def test_two_classes(name, true, predicted):
    assert evaluate(true, predicted, name) == pytest.approx(BINARY[name])


def test_options_win_over_defaults():
    # label 1 positive: true positives 2, false positives 1, false negatives 1
    assert evaluate(TRUE, PREDICTED, "PRECISION", pos_label=1) == pytest.approx(2 / 3)
    # macro: mean of 1/2 (label 0) and 2/3 (label 1)
    assert evaluate(TRUE, PREDICTED, "RECALL", average="macro", pos_label=1) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert evaluate(TRUE, PREDICTED, "PRECISION", average=None).tolist() == pytest.approx([1 / 2, 2 / 3])
    assert evaluate(TRUE, PREDICTED, "ACCURACY", normalize=False) == 3


def test_more_classes_count_by_their_support():
    true, predicted = [0, 0, 1, 2], [0, 1, 1, 1]
    # precision: 0: 1/1, 1: 1/3, 2: none, counts as 0; weights 2, 1, 1: (2 * 1 + 1/3 + 0) / 4
    assert evaluate(true, predicted, "PRECISION") == pytest.approx((2 + 1 / 3) / 4)
    # recall: 0: 1/2, 1: 1/1, 2: 0/1: (2 * 1/2 + 1 + 0) / 4
    assert evaluate(true, predicted, "RECALL") == pytest.approx(2 / 4)
    assert evaluate(np.array(true, float), np.array(predicted, float), "ACCURACY") == 2 / 4  # floats may be labels
    assert evaluate(["a", "b"], ["a", "a"], "ACCURACY") == 1 / 2


def test_one_sample_is_enough():
    assert evaluate([2], [[0.1, 0.2, 0.7]], "ACCURACY") == 1.0
    assert evaluate(np.array(1), np.array(1), "ACCURACY") == 1.0
    assert evaluate([[1.0]], [[3.0]], "MEAN_SQUARE_ERROR") == 4.0


def test_only_one_class_seen_and_predicted_gives_no_warning():
    assert evaluate([1, 1], [1, 1], "F1_SCORE") == 1.0
    assert evaluate([1, 1], [0, 0], "RECALL") == 0.0


def test_regression():
    true, predicted = [1.0, 2.0, 3.0], [1.0, 3.0, 5.0]
    assert evaluate(true, predicted, "MEAN_SQUARE_ERROR") == pytest.approx(5 / 3)
    assert evaluate(true, predicted, "MEAN_ABSOLUTE_ERROR") == pytest.approx(1.0)
    # 1 - var(0, -1, -2) / var(1, 2, 3) = 1 - 1 = 0
    assert evaluate(true, predicted, "EXPLAINED_VARIANCE") == pytest.approx(0.0)


def test_several_numbers_per_sample_give_a_value_each():
    true, predicted = np.zeros((2, 2)), np.array([[1.0, 2.0], [1.0, 4.0]])
    assert evaluate(true, predicted, "MEAN_SQUARE_ERROR").tolist() == [1.0, 10.0]
    assert evaluate(true, predicted, "MEAN_SQUARE_ERROR", multioutput="uniform_average") == 5.5


@pytest.mark.parametrize(
    ("true", "predicted", "name", "options", "reason"),
    [
        (np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), "ACCURACY", {}, "more than 2 dimensions; define testing_step"),
        ([1, 2], [1, 2, 3], "ACCURACY", {}, "2 true and 3 predicted"),
        ([], [], "MEAN_SQUARE_ERROR", {}, "0 true and 0 predicted"),
        (np.ones((2, 2)), np.ones((2, 2)), "ACCURACY", {}, "must be one-hot"),
        (np.eye(2), np.ones((2, 3)), "ACCURACY", {}, "must be one-hot"),
        (np.ones((2, 2)), np.ones((2, 3)), "MEAN_SQUARE_ERROR", {}, "cannot be compared"),
        ([1, 2], [1, 2], "ACCURACY", {"bad": 1}, "ACCURACY .* cannot be computed"),
        ([0.5, 1.5], [1, 0], "ACCURACY", {}, "cannot be computed"),
        ([0, 1], [0, 1], "PRECISION", {"average": "none such"}, "cannot be computed"),
        ([np.nan, 1.0], [0.0, 1.0], "MEAN_SQUARE_ERROR", {}, "1 of the 2 true values are NaN"),
    ],
)
def test_what_cannot_be_computed_is_said(true, predicted, name, options, reason):
    with pytest.raises(FedbiomedMetricError, match=reason):
        evaluate(true, predicted, name, **options)


def test_a_name_is_not_a_metric():
    with pytest.raises(FedbiomedMetricError, match="one of MetricTypes, not 'ACCURACY'"):
        Metrics().evaluate([1], [1], "ACCURACY")


@pytest.mark.parametrize("name", ["ACCURACY", "F1_SCORE", "MEAN_SQUARE_ERROR"])
@pytest.mark.parametrize("predicted", [np.array([0.2, np.nan, 0.9]), torch.tensor([0.2, float("nan"), 0.9])])
def test_nan_is_no_prediction_of_class_0(name, predicted):
    with pytest.raises(FedbiomedMetricError, match=r"FB611.*1 of the 3 predicted values are NaN"):
        evaluate([0, 1, 1], predicted, name)


def test_infinite_scores_are_scores():
    assert evaluate([0, 1, 1], [-np.inf, 0.4, np.inf], "ACCURACY") == pytest.approx(2 / 3)
    assert evaluate([0, 1], [[0.0, -np.inf], [-0.7, -0.6]], "ACCURACY") == 1.0  # logarithms of probabilities


def test_tensors_of_any_kind_are_compared():
    assert evaluate(torch.tensor([0.0, 1.0], dtype=torch.bfloat16), torch.tensor([0.25, 0.75], dtype=torch.bfloat16), "ACCURACY") == 1.0
