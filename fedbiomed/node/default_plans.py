"""The training plans that come with the release, in `default_training_plans/`: a file's name is its plan's name.

Each is the very text that a researcher's machine sends for that class: the import lines of its kind of plan, then the class. Where
torchvision is not installed those machines leave its line out, for nothing could be imported otherwise; so does this node.
"""

import importlib.util
import logging
from collections.abc import Iterator
from importlib import resources

from fedbiomed.node.approval import PlanRegistry

logger = logging.getLogger(__name__)
_OPTIONAL_LINE = b"from torchvision import datasets, transforms\n"


def shipped_plans() -> Iterator[tuple[str, bytes]]:
    """Names and sources of the plans, sorted by name, as they run on this machine."""
    folder = resources.files("fedbiomed.node") / "default_training_plans"
    has_torchvision = importlib.util.find_spec("torchvision") is not None
    for file in sorted(folder.iterdir(), key=lambda found: found.name):
        if file.name.endswith(".txt"):
            source = file.read_bytes()
            yield file.name, source if has_torchvision else source.replace(_OPTIONAL_LINE, b"", 1)


def take_shipped_plans(plans: PlanRegistry, *, are_allowed: bool) -> None:
    """Bring a node's registry in line with the release.

    Args:
        plans: of the node; decisions of its operator stand.
        are_allowed: False takes away the approval that the plans had for coming with the release.
    """
    if not are_allowed:
        if gone := plans.withdraw_shipped():
            logger.info("%d training plans that come with the release are not allowed here any more", gone)
        return
    for name, source in shipped_plans():
        done = plans.ship(name, source)
        if done == "taken":
            logger.warning("the plan %s of this release is left out: another plan here has its name or its source", name)
        elif done != "unchanged":
            logger.info("%s the plan %s of this release", done, name)
