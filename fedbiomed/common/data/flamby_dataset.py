"""A center of one of FLamby's datasets as a torch dataset."""

from collections.abc import Callable
from typing import Any

from torch.utils.data import Dataset

from fedbiomed.common.constants import DatasetTypes, ErrorNumbers
from fedbiomed.common.data.flamby import open_center
from fedbiomed.common.data.loading_blocks import FlambyLoadingBlockTypes
from fedbiomed.common.data.loading_plan import DataLoadingPlan, DataLoadingPlanMixin
from fedbiomed.common.exceptions import FedbiomedDatasetError, FedbiomedDatasetValueError

_KEY = FlambyLoadingBlockTypes.FLAMBY_DATASET_METADATA


class FlambyDataset(Dataset[Any], DataLoadingPlanMixin):
    """Empty until a node attaches its loading plan, which says what dataset and center it is; items are FLamby's."""

    target_dataset_type = DatasetTypes.FLAMBY

    def __init__(self) -> None:
        DataLoadingPlanMixin.__init__(self)
        self._transform: Callable[[Any], Any] | None = None
        self._center: Any = None

    def init_transform(self, transform: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Say what shall be done with each image; must come before the loading plan.

        Args:
            transform: as `Compose` of torchvision or MONAI; it is handed to FLamby.

        Raises:
            FedbiomedDatasetValueError: it is not callable.
            FedbiomedDatasetError: the dataset was opened already.
        """
        if not callable(transform):
            raise FedbiomedDatasetValueError(f"{ErrorNumbers.FB613.value}: a transform must be callable, not {transform!r:.80}")
        if self._center is not None:
            raise FedbiomedDatasetError(f"{ErrorNumbers.FB613.value}: call init_transform() before the loading plan is attached")
        self._transform = transform
        return transform

    def get_transform(self) -> Callable[[Any], Any] | None:
        """What is done with each image."""
        return self._transform

    def get_flamby_fed_class(self) -> Any:
        """FLamby's own dataset; None before a loading plan is attached."""
        return self._center

    def get_center_id(self) -> int:
        """The center.

        Raises:
            FedbiomedDatasetError: no loading plan was attached.
        """
        self._opened()
        return int(self.apply_dlb({}, _KEY)["flamby_center_id"])

    def set_dlp(self, dlp: DataLoadingPlan) -> None:
        """Attach the loading plan and open the center.

        Raises:
            FedbiomedDatasetError: the plan says nothing of FLamby, FLamby is not installed, or the center cannot be opened. The dataset
                stays as it was.
            FedbiomedLoadingBlockError: the plan's block is not complete.
        """
        if isinstance(dlp, DataLoadingPlan):
            if _KEY not in dlp:
                raise FedbiomedDatasetError(f"{ErrorNumbers.FB613.value}: a FLamby dataset needs a loading plan that holds {_KEY.value}")
            self._center = open_center(dlp[_KEY].apply(), self._transform)
        super().set_dlp(dlp)

    def clear_dlp(self) -> None:
        """Detach the loading plan; the dataset is empty again."""
        super().clear_dlp()
        self._center = None

    def shape(self) -> list[int]:
        """`[samples, ...]`: number of samples and the shape of the first one's data.

        Raises:
            FedbiomedDatasetError: no loading plan was attached.
        """
        return [len(self._opened()), *self._opened()[0][0].shape]

    def __len__(self) -> int:
        return 0 if self._center is None else len(self._center)

    def __getitem__(self, item: int) -> Any:
        return self._opened()[item]

    def _opened(self) -> Any:
        if self._center is None:
            raise FedbiomedDatasetError(
                f"{ErrorNumbers.FB613.value}: a FLamby dataset is empty until a loading plan is attached; a node does that"
            )
        return self._center
