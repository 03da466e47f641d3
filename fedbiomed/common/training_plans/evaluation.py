"""What a validation reports: one scalar message per batch, its values by name."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fedbiomed.common.checkpointing.random_states import random_kept
from fedbiomed.common.exceptions import FedbiomedTrainingPlanError
from fedbiomed.common.metrics import Metrics, MetricTypes
from fedbiomed.common.training_plans.base_plan import HistoryMonitor
from fedbiomed.common.training_plans.iterations import Loader, first_length


def evaluate(
    loader: Loader | None, values_of: Callable[[Any, Any], Mapping[str, float]], monitor: HistoryMonitor | None, *, before_train: bool
) -> None:
    """Go over the testing samples and report; random states stay as they are, so a training does not depend on whether it was tested.

    Args:
        loader: of the testing samples.
        values_of: values of one batch of data and target, by name.
        monitor: hears of them.
        before_train: whether the parameters are those that came from the researcher.

    Raises:
        FedbiomedTrainingPlanError: there are no testing samples.
    """
    if loader is None or not len(loader):
        raise FedbiomedTrainingPlanError("FB605: there are no samples to test on: give a test_ratio above 0")
    samples = 0
    with random_kept():
        for index, (data, target) in enumerate(loader):
            values, size = values_of(data, target), first_length(data)
            samples += size
            if monitor is not None:
                monitor.add_scalar(
                    metric=values,
                    iteration=index + 1,
                    epoch=None,
                    train=False,
                    test=True,
                    test_on_local_updates=not before_train,
                    test_on_global_updates=before_train,
                    total_samples=len(loader.dataset),
                    batch_samples=size,
                    num_batches=len(loader),
                    num_samples_trained=samples,
                )


def metric_values(metric: MetricTypes, metric_args: Mapping[str, Any], target: Any, predicted: Any) -> dict[str, float]:
    """A metric of predictions, by its name; of several outputs, `<name>_1` and so on."""
    return named(metric.name, Metrics().evaluate(target, predicted, metric, **metric_args))


def named(name: str, value: Any) -> dict[str, float]:
    """Values that a metric or a user's `testing_step` returned, by name.

    Args:
        name: for a scalar; several values are called `<name>_1`, `<name>_2` and so on.
        value: scalar, list, tuple, array or tensor; or a dict, whose keys are the names.

    Raises:
        FedbiomedTrainingPlanError: something else.
    """
    if isinstance(value, Mapping):
        return {str(key): _number(item, f"{name} {key!r}") for key, item in value.items()}
    if _are_several(value):
        return {f"{name}_{index}": _number(item, name) for index, item in enumerate(_flat(value), 1)}
    return {name: _number(value, name)}


def _flat(values: Any) -> Iterator[Any]:
    """The single values in nested lists, tuples, arrays and tensors, in their order."""
    for value in values:
        if _are_several(value):
            yield from _flat(value)
        else:
            yield value


def _are_several(value: Any) -> bool:
    return isinstance(value, list | tuple) or bool(getattr(value, "ndim", 0))


def _number(value: Any, what: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise FedbiomedTrainingPlanError(f"FB605: {what} must be a number, not {type(value).__name__} {value!r:.80}") from error
