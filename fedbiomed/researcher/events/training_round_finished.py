"""All updates of a training round that will come have come."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedbiomed.common.exceptions import AggregationError
from fedbiomed.researcher.course import CollectedRound
from fedbiomed.researcher.events.event import ModelTrainerEvent
from fedbiomed.researcher.events.model_test_finished import ModelTestFinished


def _aggregate_param_vectors(vectors: Sequence[Any], sample_sizes: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Mean of vectors, the k-th by its share n_k / sum(n), in float64.

    >>> _aggregate_param_vectors([[1, 2], [3, 6]], [10, 30]).tolist()
    [2.5, 5.0]

    Args:
        vectors: one per node, all of one length.
        sample_sizes: one number per vector, >= 0, not all 0.

    Raises:
        AggregationError: there are none, counts or lengths differ, a number is not finite or the sizes cannot be shares.
    """
    if not vectors or len(vectors) != len(sample_sizes):
        raise AggregationError(f"{len(vectors)} vectors, but {len(sample_sizes)} sample sizes")
    arrays = [np.asarray(vector, dtype=np.float64) for vector in vectors]
    if any(array.ndim != 1 or array.shape != arrays[0].shape for array in arrays):
        raise AggregationError(f"vectors of one length are needed, not of the shapes {[array.shape for array in arrays]}")
    if not all(np.isfinite(array).all() for array in arrays):
        raise AggregationError("a vector holds NaN or infinite values")
    total = math.fsum(sample_sizes)
    if not all(math.isfinite(size) and size >= 0 for size in sample_sizes) or total <= 0:
        raise AggregationError(f"sample sizes must be 0 or more and not all 0, not {list(sample_sizes)}")
    mean = np.zeros_like(arrays[0])
    for array, size in zip(arrays, sample_sizes, strict=True):
        mean += size / total * array
    return mean


class TrainingRoundFinished(ModelTrainerEvent):
    """A training round has finished."""

    _aggregate_param_vectors = staticmethod(_aggregate_param_vectors)

    def handle(self) -> None:
        """Aggregate the updates into the new global model and keep it; the round is done then.

        Raises:
            FedbiomedTrainerError: no round has finished.
            FedbiomedStrategyError: not enough updates: which round, how many, which nodes, why.
            FedbiomedAggregatorError: they cannot be aggregated. In each case the training stays as it was before the round.
        """
        collected = self.trainer.take_round()
        collected.keep(collected.next_params())
        self._close(collected)

    def _close(self, collected: CollectedRound) -> None:
        self.training.round += 1
        if self.trainer.options.delete_local_models_after_aggregation:
            collected.drop_local_models()

    def next(self) -> None:
        """A model test where one is due, else what follows a test."""
        if self._is_test_due():
            self.trainer.test_round()
        else:
            ModelTestFinished(self.trainer).next()

    def _is_test_due(self) -> bool:
        options, training = self.trainer.options, self.training
        if training.is_test_asked:
            return True
        is_enabled = training.are_tests_on and not options.skip_model_tests
        return is_enabled and (options.model_test_after_each_round or training.is_target_reached)
