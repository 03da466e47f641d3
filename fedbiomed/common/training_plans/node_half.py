"""What a node asks of the node's half of an algorithm around a training; a plan without one has this, which does nothing."""

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any

Kept = dict[str, dict[str, Any]]


class NodeHalf:
    """The node's half of the experiment's algorithms, as a round sees it. In each round, in this order:

        take_kept    what was kept in the round before, if there is something
        arriving     parameters that came from the researcher -> those that the model gets
        ...          the training, of which a half that does something hears through its plan
        leaving      parameters that the training made -> those that are sent
        kept         what stays on the node for the next round; never sent
        sends        what is sent beside them
        tells        small numbers for the reply

    A round of validation only has the first two.
    """

    @property
    def keeps_state(self) -> bool:
        """Whether something is kept from round to round."""
        return False

    def take_kept(self, kept: Mapping[str, Mapping[str, Any]]) -> None:
        """Take up what `kept` gave in the round before.

        Raises:
            FedbiomedTrainingPlanError: it does not fit.
        """

    def arriving(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters that the model gets.

        Args:
            params: as they came from the researcher.
        """
        return dict(params)

    def personal(self, module: Any) -> AbstractContextManager[Any] | None:
        """A block within which the model is the personal one; None where there is no other than the shared one."""
        return None

    def kept(self) -> Kept:
        """What stays on the node, by algorithm; values that the Serializer writes."""
        return {}

    def leaving(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters that are sent.

        Args:
            params: as the training made them, after the user's `postprocess`.
        """
        return dict(params)

    def sends(self, names: Collection[str]) -> Kept:
        """What is sent beside the parameters, by algorithm; values that the Serializer writes.

        Args:
            names: parameters that are sent.
        """
        return {}

    def tells(self) -> dict[str, float]:
        """Numbers for the reply, by name."""
        return {}
