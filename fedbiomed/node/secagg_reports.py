"""What a node tells of a round whose update is masked: nothing from which its number of samples follows.

With that number, which weighs the update, a researcher could take the sum apart. Batches tell it as well as samples do, so of the values
that a training reports the last one of each epoch stays, and of progress the share that is done. How long it took is told as ever.
"""

from dataclasses import replace

from fedbiomed.common.messages.training import TrainReply
from fedbiomed.node.task import RoundReport

_TOLD_OF_PRIVACY = ("epsilon", "delta")


def without_counts(reply: TrainReply) -> TrainReply:
    """A reply without numbers of samples and batches; of what differential privacy cost, epsilon and delta alone."""
    last = {(point["phase"], point["metric"], point["epoch"]): {**point, "iteration": 1} for point in reply.metrics}
    spent = None if reply.privacy is None else {name: reply.privacy[name] for name in _TOLD_OF_PRIVACY if name in reply.privacy}
    return replace(reply, sample_size=0, test_sample_size=0, metrics=tuple(last.values()), privacy=spent)


def share_done(report: RoundReport) -> RoundReport:
    """Progress in percent."""
    total = report.num_iterations
    percent = min(100, round(100 * report.iteration / total)) if total else 0
    return replace(report, iteration=percent, num_iterations=100 if total else 0, samples=0, num_samples=0)
