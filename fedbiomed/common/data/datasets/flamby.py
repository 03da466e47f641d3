"""A center of one of FLamby's datasets; a data loading plan says which."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fedbiomed.common.data.datasets.dataset_type import DatasetType, Description
from fedbiomed.common.data.flamby import open_center
from fedbiomed.common.data.loading_blocks import FlambyLoadingBlockTypes
from fedbiomed.common.data.loading_plan import DataLoadingPlan
from fedbiomed.common.exceptions import FedbiomedDatasetError


class Flamby(DatasetType):
    """FLamby knows where its data lie; there is no path."""

    has_path: ClassVar[bool] = False
    block_key = FlambyLoadingBlockTypes.FLAMBY_DATASET_METADATA

    def describe(self, path: Path, parameters: Mapping[str, Any], plan: DataLoadingPlan | None = None) -> Description:
        """Shape `[samples, ...]` of the center's training samples; see `DatasetType.describe`."""
        if plan is None or self.block_key not in plan:
            raise FedbiomedDatasetError(
                f"a flamby dataset needs a loading plan that holds {self.block_key.value}: flamby_dataset_name and flamby_center_id"
            )
        center = open_center(plan[self.block_key].apply())
        if not len(center):
            raise FedbiomedDatasetError("this center of the FLamby dataset has no sample")
        return Description(shape=(len(center), *np.shape(center[0][0])))
