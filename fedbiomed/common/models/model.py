"""What a training plan needs of a model, whatever its library."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbiomed.common.params import Params


class Model(ABC):
    """A model of some library and its parameters by name."""

    @property
    @abstractmethod
    def model(self) -> Any:
        """The model as its library knows it."""

    @abstractmethod
    def get_weights(self, only_trainable: bool = False) -> Params:  # by position in the public signature
        """Copies of the parameters.

        Args:
            only_trainable: leave out what training does not change by gradients (frozen parameters, buffers).
        """

    @abstractmethod
    def set_weights(self, weights: Mapping[str, Any]) -> None:
        """Take parameters over, as copies.

        Raises:
            FedbiomedModelError: a shape differs from the model's, or it is no mapping of names to arrays.
        """

    @abstractmethod
    def zero_gradients(self) -> None:
        """Forget gradients."""

    @abstractmethod
    def get_gradients(self) -> Params:
        """Gradients of the trainable parameters by name, where the model is; zeros for one that has none."""

    @abstractmethod
    def trainable_copies(self) -> Params:
        """Copies of the trainable parameters, where the model is."""

    @abstractmethod
    def apply_updates(self, updates: Mapping[str, Any]) -> None:
        """Add to trainable parameters.

        Args:
            updates: by name, of the parameters' shapes.

        Raises:
            FedbiomedModelError: a name or shape is not that of a trainable parameter.
        """

    @abstractmethod
    def export(self, filename: str | Path) -> None:
        """Write the model to a file of its library's format, for re-use here.

        Raises:
            OSError: the file cannot be written.
        """

    @abstractmethod
    def reload(self, filename: str | Path) -> None:
        """Read a file that `export` wrote for the same kind of model.

        Only for files of one's own: see the class for what a foreign file could do.

        Raises:
            FedbiomedModelError: the file holds something else.
            OSError: the file cannot be read.
        """
