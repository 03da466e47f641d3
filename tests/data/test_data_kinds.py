"""Data managers: what may be given, and how a loader hands it on."""

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from fedbiomed.common.data import DataManager, NPDataLoader, SkLearnDataManager, TorchDataManager
from fedbiomed.common.exceptions import FedbiomedDataManagerError
from tests.support.loaders import KINDS, SKLEARN, TORCH, X, Y, batches, labels, split


def test_torch_dataset_without_length_is_a_clear_error():
    class Endless(Dataset):
        def __getitem__(self, index):
            return torch.ones(1), torch.ones(1)

    for kind in (TORCH, SKLEARN):
        with pytest.raises(FedbiomedDataManagerError):
            split(kind, 0.0, data=Endless(), target=None)


def test_loader_arguments_that_torch_refuses_are_a_clear_error():
    with pytest.raises(FedbiomedDataManagerError, match="no_such"):
        split(TORCH, 0.0, no_such=1)
    with pytest.raises(FedbiomedDataManagerError):
        split(TORCH, 0.0, batch_size=-1)


def test_shuffle_draws_from_the_generator_that_the_plan_seeds():
    orders = []
    for _ in range(2):
        torch.manual_seed(3)
        orders.append(labels(split(TORCH, 0.0, shuffle=True, batch_size=3)[0]))
    assert orders[0] == orders[1] != list(range(10))


# --- loader arguments


@KINDS
def test_arguments_of_the_data_manager_win(kind):
    manager = DataManager(X, Y, batch_size=3)
    manager.extend_loader_args({"batch_size": 5, "drop_last": True})
    manager.load(tp_type=kind)
    assert batches(manager.split(0.0)[0]) == [3, 3, 3]


@KINDS
def test_arguments_may_be_filled_in_after_load(kind):
    manager = DataManager(X, Y, drop_last=True)
    manager.load(tp_type=kind)
    manager.extend_loader_args({"batch_size": 4, "drop_last": False})
    assert batches(manager.split(0.0)[0]) == [4, 4]


@KINDS
def test_nothing_to_fill_in_is_fine(kind):
    manager = DataManager(X, Y)
    manager.extend_loader_args(None)
    manager.extend_loader_args({})
    manager.load(tp_type=kind)
    assert batches(manager.split(0.0)[0]) == [1] * 10


def test_caller_s_arguments_are_not_changed():
    given = {"batch_size": 5}
    manager = DataManager(X, Y, shuffle=False)
    manager.extend_loader_args(given)
    manager.load(tp_type=TORCH)
    assert given == {"batch_size": 5}


def test_other_attributes_are_those_of_the_library_s_manager():
    manager = DataManager(X, Y)
    with pytest.raises(AttributeError, match="target"):
        _ = manager.target
    manager.load(tp_type=SKLEARN)
    assert np.array_equal(manager.target, Y)
    with pytest.raises(AttributeError):
        _ = manager.no_such


# --- scikit-learn


def test_torch_dataset_is_materialised_and_keeps_its_loader_arguments():
    dataset = TensorDataset(torch.tensor(X, dtype=torch.float32), torch.tensor(Y))
    train, test = split(SKLEARN, 0.2, data=dataset, target=None, batch_size=3)
    assert isinstance(train, NPDataLoader)
    assert (batches(train), batches(test)) == ([3, 3, 2], [2])
    assert sorted(labels(train) + labels(test)) == list(range(10))


class Images(Dataset):
    """Images, which a linear model cannot take."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.ones(1, 8, 8), torch.tensor(0)


class Named(Images):
    """Dict inputs."""

    def __getitem__(self, index):
        return {"a": torch.ones(1)}, torch.tensor(0)


class Single(Images):
    """No target."""

    def __getitem__(self, index):
        return torch.ones(1)


@pytest.mark.parametrize("dataset", [Images(), Named(), Single(), TensorDataset(torch.ones(0, 2), torch.ones(0))])
def test_torch_dataset_that_is_no_table_is_a_clear_error(dataset):
    with pytest.raises(FedbiomedDataManagerError):
        split(SKLEARN, 0.2, data=dataset, target=None)


def test_unknown_loader_argument_is_a_clear_error():
    with pytest.raises(FedbiomedDataManagerError, match="no argument 'num_workers'"):
        split(SKLEARN, 0.0, num_workers=2)


def test_managers_are_of_their_library():
    for kind, wanted in ((TORCH, TorchDataManager), (SKLEARN, SkLearnDataManager)):
        manager = DataManager(X, Y)
        manager.load(tp_type=kind)
        assert isinstance(manager._manager, wanted)


# --- NPDataLoader


def test_rows_become_columns():
    ((data, target), *_) = NPDataLoader(Y, Y, batch_size=4)
    assert (data.shape, target.shape) == ((4, 1), (4, 1))


@pytest.mark.parametrize(
    ("size", "drop_last", "sizes"), [(4, False, [4, 4, 2]), (4, True, [4, 4]), (5, True, [5, 5]), (99, False, [10]), (99, True, [])]
)
def test_batches_and_their_number(size, drop_last, sizes):
    loader = NPDataLoader(X, Y, batch_size=size, drop_last=drop_last)
    assert (batches(loader), len(loader)) == (sizes, len(sizes))


def test_shuffle_is_another_order_each_time_and_the_same_by_seed():
    loader, same = (NPDataLoader(X, Y, shuffle=True, random_seed=3) for _ in range(2))
    passes = [labels(loader), labels(loader)]
    assert passes == [labels(same), labels(same)]
    assert passes[0] != passes[1]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(10))


def test_shuffle_without_seed_draws_from_numpy():
    orders = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        orders.append(labels(NPDataLoader(X, Y, shuffle=True)))
    assert orders[0] == orders[1] != orders[2]


def test_batches_are_copies():
    loader = NPDataLoader(X, Y, batch_size=10)
    for data, _ in loader:
        data[:] = -1
    assert np.array_equal(loader.dataset, X)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"batch_size": -3},
        {"batch_size": 2.0},
        {"batch_size": True},
        {"batch_size": None},
        {"shuffle": 1},
        {"drop_last": None},
    ],
)
def test_wrong_arguments_are_a_clear_error(wrong):
    with pytest.raises(FedbiomedDataManagerError, match=next(iter(wrong))):
        NPDataLoader(X, Y, **wrong)


def test_wrong_random_seed_is_a_clear_error():
    with pytest.raises(FedbiomedDataManagerError, match="random_seed"):
        NPDataLoader(X, Y, shuffle=True, random_seed="seed")


def test_inputs_of_more_dimensions_are_a_clear_error():
    with pytest.raises(FedbiomedDataManagerError, match="more than 2 dimensions"):
        NPDataLoader(np.zeros((3, 2, 2)), np.zeros(3))
