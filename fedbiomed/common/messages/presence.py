"""Which component is connected."""

from dataclasses import dataclass

from fedbiomed.common.messages.message import Message, Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence(Message):
    """Retained on the component's own topic; the broker publishes the offline one when the line is cut.

    Args:
        component_id: who.
        boot_id: drawn at each start of the process.
        is_online: whether it is connected.
        name: what users call it.
    """

    component_id: str
    boot_id: str
    is_online: bool
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BootProbe(Message):
    """Asked on a node's own topic by a process that is about to use its id: is anyone alive under it?"""

    component_id: str
    boot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BootProbeReply(Message):
    """Someone is."""

    component_id: str
    boot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(Reply):
    """Said by a node after each connect to every researcher whose orders it holds open.

    `request_id` is the boot id here: a hello answers no request.
    """

    open_orders: tuple[str, ...]
