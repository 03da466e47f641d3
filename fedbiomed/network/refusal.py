"""What the repository answers to a request that it does not serve."""

from fedbiomed.common.exceptions import FedbiomedNetworkError


class Refusal(FedbiomedNetworkError):
    """A request that is not served.

    Args:
        status: the HTTP status.
        reason: one sentence: what was asked, what stands against it, what to do.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def disk_full() -> Refusal:
    """What a request is told that finds no room, wherever it finds that."""
    return Refusal(507, "the repository's disk is full; its administrator must make room")
