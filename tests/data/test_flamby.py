"""FLamby's datasets: a package of its layout, and a machine without it."""

import importlib
import sys

import pytest
import torch

from fedbiomed.common.data import (
    DataLoadingPlan,
    FlambyDataset,
    FlambyDatasetMetadataBlock,
    FlambyLoadingBlockTypes,
    discover_flamby_datasets,
)
from fedbiomed.common.data.datasets.dataset_type import load_type
from fedbiomed.common.exceptions import FedbiomedDatasetError, FedbiomedDatasetValueError

TINY = """
import torch
class FedClass(torch.utils.data.Dataset):
    def __init__(self, transform=None, center=0, train=True, pooled=False):
        if center > 2 or not train or pooled:
            raise ValueError(f"no center {center}")
        self.transform, self.center = transform, center
    def __len__(self):
        return 4 + self.center
    def __getitem__(self, item):
        x = torch.full((1, 3, 3), float(item))
        return (self.transform(x) if self.transform else x), torch.tensor([self.center])
"""


@pytest.fixture
def flamby(tmp_path, monkeypatch):
    """FLamby's layout with one dataset that works and one whose requirements are missing."""
    for name, text in (("fed_tiny", TINY), ("fed_broken", "import no_such_library_anywhere\n"), ("utils", "")):
        (tmp_path / "flamby" / "datasets" / name).mkdir(parents=True)
        (tmp_path / "flamby" / "datasets" / name / "__init__.py").write_text(text)
    for folder in ("flamby", "flamby/datasets"):
        (tmp_path / folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "flamby"]:
        del sys.modules[name]


def plan(name="fed_tiny", center=1):
    block = FlambyDatasetMetadataBlock()
    block.metadata = {"flamby_dataset_name": name, "flamby_center_id": center}
    return DataLoadingPlan({FlambyLoadingBlockTypes.FLAMBY_DATASET_METADATA: block})


@pytest.mark.usefixtures("flamby")
def test_a_dataset_is_opened_by_its_plan():
    assert discover_flamby_datasets() == {0: "fed_broken", 1: "fed_tiny"}
    dataset = FlambyDataset()
    assert (len(dataset), dataset.get_flamby_fed_class()) == (0, None)
    dataset.init_transform(lambda x: x + 1)
    dataset.set_dlp(plan())
    assert (len(dataset), dataset.shape(), dataset.get_center_id()) == (5, [5, 1, 3, 3], 1)
    x, y = dataset[2]
    assert torch.equal(x, torch.full((1, 3, 3), 3.0))
    assert y.item() == 1
    dataset.clear_dlp()
    assert len(dataset) == 0


@pytest.mark.usefixtures("flamby")
def test_the_type_describes_a_center():
    assert load_type("flamby").describe(None, {}, plan(center=2)).shape == (6, 1, 3, 3)
    with pytest.raises(FedbiomedDatasetError, match="needs a loading plan that holds flamby_dataset_metadata"):
        load_type("flamby").describe(None, {})


@pytest.mark.usefixtures("flamby")
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (plan("fed_other"), "FLamby has no dataset 'fed_other'; it has fed_broken, fed_tiny"),
        (plan("fed_broken"), "fed_broken cannot be imported: No module named 'no_such_library_anywhere'"),
        (plan(center=9), "center 9 of FLamby's fed_tiny cannot be opened: ValueError"),
        (DataLoadingPlan(), "needs a loading plan that holds flamby_dataset_metadata"),
    ],
)
def test_a_wrong_plan_leaves_the_dataset_as_it_was(wrong, reason):
    dataset = FlambyDataset()
    with pytest.raises(FedbiomedDatasetError, match=reason):
        dataset.set_dlp(wrong)
    assert len(dataset) == 0
    dataset.set_dlp(plan())
    with pytest.raises(FedbiomedDatasetError, match=reason):
        dataset.set_dlp(wrong)
    assert (len(dataset), dataset.get_center_id()) == (5, 1)


@pytest.mark.usefixtures("flamby")
def test_transforms_come_first():
    dataset = FlambyDataset()
    with pytest.raises(FedbiomedDatasetValueError, match="must be callable"):
        dataset.init_transform("flip")
    dataset.set_dlp(plan())
    with pytest.raises(FedbiomedDatasetError, match="before the loading plan"):
        dataset.init_transform(torch.abs)


def test_an_empty_dataset_says_what_it_waits_for():
    for ask in (FlambyDataset().shape, FlambyDataset().get_center_id, lambda: FlambyDataset()[0]):
        with pytest.raises(FedbiomedDatasetError, match="empty until a loading plan is attached"):
            ask()


@pytest.mark.skipif(importlib.util.find_spec("flamby") is not None, reason="FLamby is installed here")
def test_without_flamby():
    for ask in (discover_flamby_datasets, lambda: FlambyDataset().set_dlp(plan()), lambda: load_type("flamby").describe(None, {}, plan())):
        with pytest.raises(FedbiomedDatasetError, match="FLamby is not installed on this machine; install it"):
            ask()
