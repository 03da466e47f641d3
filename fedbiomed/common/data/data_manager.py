"""What a plan's `training_data` returns: data and the wishes for their loader, before anybody knows for which library."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from fedbiomed.common.constants import TrainingPlans
from fedbiomed.common.data.arrays import is_table, refused


class LoaderMaker(Protocol):
    """What the managers of both libraries do."""

    @property
    def dataset(self) -> Any:
        """The data as they were given, or as the library needs them."""

    def extend_loader_args(self, extension: Mapping[str, Any]) -> None:
        """Fill in arguments of the loader that were not given."""

    def split(self, test_ratio: float, seed: int | None = None) -> tuple[Any, Any]:
        """Loaders of training and test samples."""


class DataManager:
    """Data of a training plan.

    Args:
        dataset: a torch `Dataset`, or a numpy array, DataFrame or Series.
        target: array, DataFrame or Series of the same length; None with a torch `Dataset`.
        **loader_kwargs: of the loader, as `batch_size`, `shuffle`, `drop_last`; they win over the researcher's `loader_args`.

    Once `load` has been called, other attributes are those of the library's manager.
    """

    def __init__(self, dataset: Any, target: Any = None, **loader_kwargs: Any) -> None:
        self._dataset = dataset
        self._target = target
        self._loader_args = dict(loader_kwargs)
        self._manager: LoaderMaker | None = None

    @property
    def dataset(self) -> Any:
        """The data as they were given; after `load`, as the library needs them."""
        return self._dataset if self._manager is None else self._manager.dataset

    def extend_loader_args(self, extension: Mapping[str, Any] | None) -> None:
        """Fill in arguments of the loader that were not given."""
        self._loader_args = {**(extension or {}), **self._loader_args}
        if self._manager is not None:
            self._manager.extend_loader_args(extension or {})

    def load(self, tp_type: TrainingPlans) -> None:
        """Make the data ready for the plan's library.

        Raises:
            FedbiomedDataManagerError: data of this kind do not go with such a plan.
        """
        if tp_type not in _MAKERS:
            raise refused(f"data are loaded for one of {', '.join(_MAKERS)}, not for {tp_type!r:.80}")
        self._manager = _MAKERS[tp_type](self._dataset, self._target, self._loader_args)

    def split(self, test_ratio: float, seed: int | None = None) -> tuple[Any, Any]:
        """Loaders of training and test samples.

        Args:
            test_ratio: share of the samples kept for tests, from 0 to 1.
            seed: the same seed gives the same split, in every round.

        Raises:
            FedbiomedDataManagerError: `load` was not called, or an argument is wrong.
        """
        if self._manager is None:
            raise refused("call load() of the data manager before split()")
        return self._manager.split(test_ratio, seed)

    def __getattr__(self, name: str) -> Any:
        manager = self.__dict__.get("_manager")
        if manager is None or name.startswith("__"):
            raise AttributeError(f"a DataManager has no attribute {name!r} (before load())")
        return getattr(manager, name)


def _for_torch(dataset: Any, target: Any, loader_args: Mapping[str, Any]) -> LoaderMaker:
    from fedbiomed.common.data.tabular_dataset import TabularDataset  # torch is heavy, loaded for torch plans only
    from fedbiomed.common.data.torch_data_manager import TorchDataManager

    if target is None and not is_table(dataset):
        return TorchDataManager(dataset, **loader_args)
    if is_table(dataset) and is_table(target):
        return TorchDataManager(TabularDataset(dataset, target), **loader_args)
    raise _misfit(dataset, target)


def _for_sklearn(dataset: Any, target: Any, loader_args: Mapping[str, Any]) -> LoaderMaker:
    from fedbiomed.common.data.sklearn_data_manager import SkLearnDataManager

    if is_table(dataset) and is_table(target):
        return SkLearnDataManager(dataset, target, **loader_args)
    if target is None and not is_table(dataset):
        return SkLearnDataManager(*_materialised(dataset), **loader_args)
    raise _misfit(dataset, target)


def _materialised(dataset: Any) -> tuple[Any, Any]:
    """All samples of a torch dataset as two arrays."""
    from torch import Tensor  # heavy, as below
    from torch.utils.data import DataLoader, Dataset  # heavy, loaded when a torch dataset is given

    if not isinstance(dataset, Dataset) or not hasattr(dataset, "__len__") or not len(dataset):
        raise _misfit(dataset, None)
    pair = next(iter(DataLoader(dataset, batch_size=len(dataset))))
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(part, Tensor) for part in pair):
        raise refused(f"for a scikit-learn plan a {type(dataset).__name__} must give pairs of one tensor of inputs and one of targets")
    return pair[0].numpy(), pair[1].numpy()


def _misfit(dataset: Any, target: Any) -> Exception:
    return refused(
        "a DataManager takes a torch Dataset, or an array (DataFrame, Series) and a target of this kind; "
        f"found {type(dataset).__name__} and {type(target).__name__}"
    )


_MAKERS: Mapping[TrainingPlans, Callable[[Any, Any, Mapping[str, Any]], LoaderMaker]] = {
    TrainingPlans.TorchTrainingPlan: _for_torch,
    TrainingPlans.SkLearnTrainingPlan: _for_sklearn,
}
