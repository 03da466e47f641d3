"""Which batches a training goes over, and which of them are reported."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError, FedbiomedUserInputError

logger = logging.getLogger(__name__)


class Loader(Protocol):
    """Gives batches, anew at each pass."""

    dataset: Any

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One batch and where it stands.

    Args:
        data, target: as the loader gives them.
        size: samples in it.
        epoch: from 1; None when trained by number of updates.
        iteration: from 1: within the epoch, or over all updates.
        num_batches: of the epoch, or all updates.
        samples_before: samples trained on before it, in the epoch or in all updates.
        total_samples: in the training subset.
        is_reported: whether its loss is to be reported: each `log_interval`-th batch of the training, the first and last of an epoch.
    """

    data: Any
    target: Any
    size: int
    epoch: int | None
    iteration: int
    num_batches: int
    samples_before: int
    total_samples: int
    is_reported: bool

    def scalars(self) -> dict[str, Any]:
        """What a monitor is told of a training batch beside the metric."""
        return {
            "iteration": self.iteration,
            "epoch": self.epoch,
            "train": True,
            "test": False,
            "test_on_local_updates": False,
            "test_on_global_updates": False,
            "total_samples": self.total_samples,
            "batch_samples": self.size,
            "num_batches": self.num_batches,
            "num_samples_trained": self.samples_before + self.size,
        }


def training_batches(loader: Loader, args: Mapping[str, Any]) -> Iterator[Batch]:
    """Go over a loader as the training arguments say.

    Args:
        loader: with at least one batch.
        args: `epochs` or `num_updates`, `batch_maxnum` (cap of batches per epoch; None or 0: none), `log_interval`, `dry_run` (end after
            the first batch).

    Raises:
        FedbiomedUserInputError: neither epochs nor updates were asked for.
        FedbiomedTrainingPlanError: while it goes: what the loader gives is no pair, or, where updates are counted, a pass gives nothing.
    """
    epochs, updates = args["epochs"], args["num_updates"]
    if epochs is None and updates is None:
        raise FedbiomedUserInputError("FB414: training_args must say `epochs` or `num_updates`: neither was given")
    if updates is not None:
        if epochs is not None or args["batch_maxnum"]:
            logger.warning("num_updates is given: epochs and batch_maxnum are left out")
        batches = _by_updates(loader, updates, args["log_interval"])
    else:
        batches = _by_epochs(loader, epochs, min(args["batch_maxnum"] or len(loader), len(loader)), args["log_interval"])
    return islice(batches, 1) if args["dry_run"] else batches


def planned_steps(per_pass: int, args: Mapping[str, Any]) -> int:
    """How many batches `training_batches` will give.

    Args:
        per_pass: batches in a pass over the loader.
        args: as there.
    """
    if args["num_updates"] is not None:
        steps = int(args["num_updates"])
    else:
        steps = (args["epochs"] or 0) * min(args["batch_maxnum"] or per_pass, per_pass)
    return min(steps, 1) if args["dry_run"] else steps


def _by_epochs(loader: Loader, epochs: int, per_epoch: int, interval: int) -> Iterator[Batch]:
    for epoch in range(1, epochs + 1):
        samples = 0
        for index, pair in enumerate(islice(loader, per_epoch)):
            is_edge = index in (0, per_epoch - 1)
            is_reported = is_edge or ((epoch - 1) * per_epoch + index + 1) % interval == 0
            batch = _batch(loader, pair, epoch, index, per_epoch, samples, is_reported)
            yield batch
            samples += batch.size


def _by_updates(loader: Loader, updates: int, interval: int) -> Iterator[Batch]:
    per_pass, samples = len(loader), 0
    for index, pair in enumerate(islice(_endless(loader), updates)):
        is_edge = index % per_pass in (0, per_pass - 1) or index == updates - 1
        batch = _batch(loader, pair, None, index, updates, samples, is_edge or (index + 1) % interval == 0)
        yield batch
        samples += batch.size


def _endless(loader: Loader) -> Iterator[Any]:
    while True:
        is_empty = True
        for pair in loader:
            is_empty = False
            yield pair
        if is_empty:  # else it would be asked for ever
            raise FedbiomedTrainingPlanError(f"FB605: the loader says that it has {len(loader)} batches, and gives none")


def _batch(loader: Loader, pair: Any, epoch: int | None, index: int, count: int, samples: int, is_reported: bool) -> Batch:  # noqa: PLR0917
    try:
        data, target = pair
    except (TypeError, ValueError) as error:
        raise FedbiomedTrainingPlanError("FB605: the dataset must give pairs of data and target") from error
    return Batch(
        data=data,
        target=target,
        size=first_length(data),
        epoch=epoch,
        iteration=index + 1,
        num_batches=count,
        samples_before=samples,
        total_samples=len(loader.dataset),
        is_reported=is_reported,
    )


def first_length(data: Any) -> int:
    """Samples in a batch: length of the first leaf of nested tuples, lists and dicts.

    Raises:
        FedbiomedTrainingPlanError: that leaf has no length.
    """
    while isinstance(data, tuple | list | dict) and data:
        data = next(iter(data.values())) if isinstance(data, dict) else data[0]
    try:
        return len(data)
    except TypeError as error:
        raise FedbiomedTrainingPlanError(f"FB605: a batch holds tensors or arrays of samples, not a {type(data).__name__}") from error
