"""What a training plan reports while it runs: collected for the reply, and passed on as progress."""

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedbiomed.common.constants import EPSILON, Phase
from fedbiomed.node.task import RoundReport

_REPLY_BYTES = 48 * 1024
_MAX_POINTS = 20_000
_EVERY_S = 1.0
Point = dict[str, Any]


class RoundMonitor:
    """The `history_monitor` of a plan's training and testing routines.

    Args:
        report: hears the last values, at most once a second and not in the first one.
        epochs: how many there will be, where the training is counted in them.
        clock: seconds.
    """

    def __init__(self, report: Callable[[RoundReport], None], epochs: int = 1, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._report = report
        self._epochs = epochs
        self._clock = clock
        self._points: list[Point] = []
        self._told_at = clock()
        self._batch_sizes: dict[Phase, int] = {}

    def add_scalar(
        self,
        *,
        metric: Mapping[str, float],
        iteration: int,
        epoch: int | None,
        train: bool,
        test: bool,
        test_on_local_updates: bool,
        test_on_global_updates: bool,
        total_samples: int,
        batch_samples: int,
        num_batches: int,
        num_samples_trained: int | None = None,
    ) -> None:
        """Take values that were measured on one batch.

        A value that is not finite stands as text in the reply (`nan`, `inf`; JSON has no word for it) and is left out of the progress.
        """
        phase = Phase.TRAINING if train else Phase.TEST_GLOBAL if test_on_global_updates else Phase.TEST_LOCAL
        self._batch_sizes[phase] = max(batch_samples, self._batch_sizes.get(phase, 1))  # the last batch of an epoch may be smaller
        values = {name: float(value) for name, value in metric.items()}
        for name, value in values.items():
            shown = value if math.isfinite(value) else str(value)
            self._points.append({"phase": str(phase), "metric": name, "value": shown, "iteration": iteration, "epoch": epoch})
        if len(self._points) > _MAX_POINTS:
            self._points = _evenly(self._points, _MAX_POINTS // 2)
        if self._clock() - self._told_at >= _EVERY_S:
            self._told_at = self._clock()
            to_do = samples_to_go_over(total_samples, self._batch_sizes[phase], num_batches)
            passes = 1 if epoch is None else self._epochs
            done = to_do * ((epoch or 1) - 1) + (num_samples_trained or 0)
            self._report(
                RoundReport(
                    phase=str(phase),
                    iteration=iteration + num_batches * ((epoch or 1) - 1),
                    num_iterations=num_batches * passes,
                    epoch=epoch,
                    metrics={name: value for name, value in values.items() if math.isfinite(value)},
                    samples=0 if num_samples_trained is None else done,
                    num_samples=0 if num_samples_trained is None else max(to_do * passes, done),
                )
            )

    def add_epsilon(self, epsilon: float, steps: int) -> None:
        """Take what the experiment has spent of this node's privacy, after so many steps of this round."""
        shown = epsilon if math.isfinite(epsilon) else str(epsilon)
        self._points.append({"phase": str(Phase.TRAINING), "metric": EPSILON, "value": shown, "iteration": steps, "epoch": None})

    def points(self) -> tuple[Point, ...]:
        """All that was reported, in its order; thinned to 48 KB of JSON."""
        return thinned(self._points, _REPLY_BYTES)


def samples_to_go_over(total_samples: int, batch_samples: int, num_batches: int) -> int:
    """Samples in so many batches, the loader beginning anew (with a whole batch) after each pass over all samples."""
    per_pass = max(1, math.ceil(total_samples / batch_samples))
    passes, rest = divmod(num_batches, per_pass)
    return passes * total_samples + rest * batch_samples


def thinned(points: Sequence[Point], limit_bytes: int) -> tuple[Point, ...]:
    """Keep so many points that their JSON is no longer than this: of each metric the first, the last and some evenly between."""
    kept = list(points)
    share = max(len(points), 1)
    while _size(kept) > limit_bytes and share > 1:
        share = max(1, share // 2)
        kept = _evenly(points, share)
    while _size(kept) > limit_bytes:
        kept = kept[: len(kept) // 2]
    return tuple(kept)


def _evenly(points: Sequence[Point], share: int) -> list[Point]:
    """At most so many points of each metric, in their order; of one only the last."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, point in enumerate(points):
        groups[(point["phase"], point["metric"])].append(index)
    chosen: set[int] = set()
    for indices in groups.values():
        count = min(share, len(indices))
        chosen.update(indices[-1 - round(step * (len(indices) - 1) / max(count - 1, 1))] for step in range(count))
    return [points[index] for index in sorted(chosen)]


def _size(points: Sequence[Point]) -> int:
    return len(json.dumps(points, separators=(",", ":")))
