"""A history monitor that keeps what it hears."""

from typing import Any


class Monitor:
    """Every message, in order."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []

    def add_scalar(self, **message: Any) -> None:
        """Keep a message."""
        self.heard.append(message)

    def values(self, name: str) -> list[float]:
        """What was reported of one metric."""
        return [message["metric"][name] for message in self.heard]
