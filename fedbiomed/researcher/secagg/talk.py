"""Questions of which each node gets its own, asked at once and waited for together."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

from fedbiomed.common.exceptions import FedbiomedSecaggError
from fedbiomed.common.messages.failure import ErrorReply
from fedbiomed.common.messages.message import Reply, Request
from fedbiomed.common.secagg.errors import setup_error
from fedbiomed.researcher.requests import Requests

AnyReply = TypeVar("AnyReply", bound=Reply)


class Answers(dict[str, AnyReply]):
    """Good answers by node; `refusals` and `silent` tell of the others.

    Attributes:
        refusals: why a node refused, by node.
        silent: nodes that did not answer in time, or are offline.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refusals: dict[str, str] = {}
        self.silent: list[str] = []

    def reasons(self) -> dict[str, str]:
        """Why nodes gave no good answer, by node."""
        return {**self.refusals, **dict.fromkeys(self.silent, "no answer in time; is it running? (`fedbiomed node status` there)")}


def ask_each(requests: Requests, questions: Mapping[str, Request], kind: type[AnyReply], timeout_s: float) -> Answers[AnyReply]:
    """Ask each node its own question.

    Args:
        requests: the line to the nodes.
        questions: by node.
        kind: of a good answer.
        timeout_s: counted from now, for all together.
    """
    answers: Answers[AnyReply] = Answers()
    with contextlib.ExitStack() as stack:
        asked = {node: stack.enter_context(requests.ask(request, [node], timeout_s)) for node, request in questions.items()}
        for node, question in asked.items():
            _sort(answers, node, list(question), kind)
    return answers


def tell_each(requests: Requests, questions: Mapping[str, Request]) -> None:
    """Tell each node something, and wait for nothing."""
    for node, request in questions.items():
        with requests.ask(request, [node], timeout_s=0.0):
            pass


def complete(answers: Answers[AnyReply]) -> Answers[AnyReply]:
    """Answers of all members: who drops out between two steps of an agreement ends it.

    Raises:
        FedbiomedSecaggError: one refused, or is silent: which one, why.
    """
    if answers.reasons():
        raise refused(answers.reasons())
    return answers


def refused(reasons: Mapping[str, str]) -> FedbiomedSecaggError:
    """The error of an agreement that did not come about.

    Args:
        reasons: why, by node.
    """
    told = "; ".join(f"{node}: {reason}" for node, reason in sorted(reasons.items()))
    return setup_error(f"no agreement on secure aggregation: {told}")


def _sort(answers: Answers[AnyReply], node: str, replies: Sequence[Reply], kind: type[AnyReply]) -> None:
    if not replies:
        answers.silent.append(node)
        return
    reply = replies[0]
    if isinstance(reply, kind):
        answers[node] = reply
    else:
        answers.refusals[node] = reply.msg if isinstance(reply, ErrorReply) else f"it answered with a {type(reply).__name__}"
