"""Who is connected under a node's id: said to everyone, and asked before a process takes an id."""

import logging
import threading

from fedbiomed.common.config import NodeConfig
from fedbiomed.common.exceptions import ComponentTwiceError, FedbiomedMessageError
from fedbiomed.common.messages import topics
from fedbiomed.common.messages.codec import decode, encode
from fedbiomed.common.messages.message import Message
from fedbiomed.common.messages.presence import BootProbe, BootProbeReply, Presence
from fedbiomed.common.transport.transport import MessageBus

logger = logging.getLogger(__name__)
_ECHO_S = 5.0
_ANSWER_S = 2.0


def presence(config: NodeConfig, boot_id: str, *, is_online: bool) -> tuple[str, bytes]:
    """Topic and payload by which a node says that it is there, or (as its last will) that it is not."""
    message = Presence(component_id=config.id, boot_id=boot_id, is_online=is_online, name=config.label)
    return topics.presence(config.federation, config.id), encode(message)


def refuse_twin(bus: MessageBus, config: NodeConfig, boot_id: str) -> None:
    """Make sure that nobody else lives under the id of this node.

    Two components with one id would throw each other off the broker for ever. A retained `online` is not enough to tell: after a crash it
    stands until the broker has noticed. So who is said to be online is asked, and has two seconds for its answer.

    Args:
        bus: a connected line of another client id, so that asking disturbs nobody.

    Raises:
        ComponentTwiceError: somebody answered.
    """
    said_online, heard_all, answered = threading.Event(), threading.Event(), threading.Event()

    def hear_presence(_topic: str, payload: bytes) -> None:
        message = _read(payload)
        if isinstance(message, Presence) and message.is_online and message.boot_id != boot_id:
            said_online.set()

    def hear_answer(_topic: str, payload: bytes) -> None:
        message = _read(payload)
        if isinstance(message, BootProbeReply):
            (heard_all if message.boot_id == boot_id else answered).set()

    bus.subscribe(topics.presence(config.federation, config.id), hear_presence)
    bus.subscribe(topics.probe(config.federation, config.id), hear_answer)
    # What the broker retains came before the echo of our own words.
    bus.publish(topics.probe(config.federation, config.id), encode(BootProbeReply(component_id=config.id, boot_id=boot_id)))
    heard_all.wait(_ECHO_S)
    if not said_online.is_set():
        return
    bus.publish(topics.orders(config.federation, config.id), encode(BootProbe(component_id=config.id, boot_id=boot_id)))
    if answered.wait(_ANSWER_S):
        raise ComponentTwiceError(
            f"a node with the id {config.id} is already connected to {config.broker}:{config.broker_port}: stop it, or make a new node "
            "with `fedbiomed node create` instead of copying a folder"
        )


def answer_probe(bus: MessageBus, config: NodeConfig, boot_id: str, probe: BootProbe) -> None:
    """Tell who is about to take our id that we live; our own question, which may come late, is not answered."""
    if probe.boot_id != boot_id and probe.component_id == config.id:
        logger.warning("another process wants to run under the id of this node (%s); it is told to stop", config.id)
        bus.publish(topics.probe(config.federation, config.id), encode(BootProbeReply(component_id=config.id, boot_id=boot_id)))


def _read(payload: bytes) -> Message | None:
    try:
        return decode(payload)
    except FedbiomedMessageError as error:
        logger.warning("ignored a message about presence: %s", error)
        return None
