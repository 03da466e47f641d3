"""The scikit-learn plans that users derive from."""

from collections.abc import Mapping
from typing import Any

from sklearn.linear_model import Perceptron, SGDClassifier, SGDRegressor

from fedbiomed.common.exceptions import FedbiomedModelError
from fedbiomed.common.models.sklearn_model import SGDClassifierModel, SGDRegressorModel
from fedbiomed.common.training_plans.sklearn_plan import SKLearnTrainingPlan, required_count


class FedSGDClassifier(SKLearnTrainingPlan):
    """Wraps `sklearn.linear_model.SGDClassifier`; `model_args` holds `n_features`, `n_classes` and hyper-parameters.

    Labels are the integers 0 .. n_classes - 1.
    """

    def builtin_dependencies(self) -> list[str]:
        """See `BaseTrainingPlan`."""
        return [
            *super().builtin_dependencies(),
            "from sklearn.linear_model import SGDClassifier",
            "from fedbiomed.common.training_plans import FedSGDClassifier",
        ]

    def build_model(self, model_args: Mapping[str, Any]) -> SGDClassifierModel:
        """See `SKLearnTrainingPlan`."""
        chosen = hyper_parameters(SGDClassifier, model_args)
        if isinstance(chosen.get("class_weight"), dict):
            chosen["class_weight"] = {_class_of(label): weight for label, weight in chosen["class_weight"].items()}
        estimator = SGDClassifier(**chosen)
        return SGDClassifierModel(estimator, required_count(model_args, "n_features", 1), required_count(model_args, "n_classes", 2))


class FedPerceptron(FedSGDClassifier):
    """`SGDClassifier` with the perceptron's loss, and `Perceptron`'s defaults where the user gave none."""

    def builtin_dependencies(self) -> list[str]:
        """See `BaseTrainingPlan`."""
        return [*super().builtin_dependencies()[:-1], "from fedbiomed.common.training_plans import FedPerceptron"]

    def build_model(self, model_args: Mapping[str, Any]) -> SGDClassifierModel:
        """See `SKLearnTrainingPlan`."""
        plain = SGDClassifier().get_params()
        usual = {name: value for name, value in Perceptron().get_params().items() if name in plain}
        given = {name: value for name, value in model_args.items() if name not in plain or value != plain[name]}
        return super().build_model({**usual, "verbose": 1, **given, "loss": "perceptron"})


class FedSGDRegressor(SKLearnTrainingPlan):
    """Wraps `sklearn.linear_model.SGDRegressor`; `model_args` holds `n_features` and hyper-parameters."""

    def builtin_dependencies(self) -> list[str]:
        """See `BaseTrainingPlan`."""
        return [
            *super().builtin_dependencies(),
            "from sklearn.linear_model import SGDRegressor",
            "from fedbiomed.common.training_plans import FedSGDRegressor",
        ]

    def build_model(self, model_args: Mapping[str, Any]) -> SGDRegressorModel:
        """See `SKLearnTrainingPlan`."""
        estimator = SGDRegressor(**hyper_parameters(SGDRegressor, model_args))
        return SGDRegressorModel(estimator, required_count(model_args, "n_features", 1))


def _class_of(label: Any) -> int:
    """JSON has turned classes into text."""
    text = str(label)
    if not text.isdecimal():
        raise FedbiomedModelError(f"class_weight in model_args gives weights by class, an integer from 0, not by {label!r:.40}")
    return int(text)


def hyper_parameters(kind: Any, model_args: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arguments that are hyper-parameters of an estimator; the others belong to the user."""
    known = kind().get_params()
    return {name: value for name, value in {"verbose": 1, **model_args}.items() if name in known}
