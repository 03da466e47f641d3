"""Data that a plan hands over: their forms, their split, their loaders."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from fedbiomed.common.constants import TrainingPlans
from fedbiomed.common.data import DataManager, NPDataLoader, SkLearnDataManager, TabularDataset, TorchDataManager
from fedbiomed.common.exceptions import FedbiomedDataManagerError, FedbiomedError

TORCH, SKLEARN = TrainingPlans.TorchTrainingPlan, TrainingPlans.SkLearnTrainingPlan
KINDS = pytest.mark.parametrize("kind", [TORCH, SKLEARN])
X = np.arange(20.0).reshape(10, 2)
Y = np.arange(10)


def split(kind, ratio, *, seed=0, data=X, target=Y, **loader_args):
    manager = DataManager(data, target, **loader_args)
    manager.load(tp_type=kind)
    return manager.split(ratio, seed=seed)


def labels(loader):
    """Targets in the order in which a loader gives them."""
    return [] if loader is None else [int(value) for _, target in loader for value in np.asarray(target).ravel()]


def batches(loader):
    return [len(target) for _, target in loader]


# --- split


@KINDS
def test_split_has_each_sample_once(kind):
    train, test = split(kind, 0.3)
    assert sorted(labels(train) + labels(test)) == list(range(10))
    assert len(labels(test)) == 3


@KINDS
def test_inputs_and_targets_stay_together(kind):
    for loader in split(kind, 0.4):
        for data, target in loader:
            assert (np.asarray(data)[:, 0] == 2 * np.asarray(target).ravel()).all()


@KINDS
def test_same_seed_gives_the_same_split_whatever_was_drawn_before(kind):
    first = split(kind, 0.3, seed=5)
    torch.manual_seed(9)
    np.random.seed(9)
    second = split(kind, 0.3, seed=5)
    assert [labels(loader) for loader in first] == [labels(loader) for loader in second]


@KINDS
def test_same_manager_splits_the_same_again(kind):
    manager = DataManager(X, Y)
    manager.load(tp_type=kind)
    assert labels(manager.split(0.3, seed=5)[1]) == labels(manager.split(0.3, seed=5)[1])


@KINDS
def test_other_seeds_give_other_splits(kind):
    assert len({tuple(sorted(labels(split(kind, 0.3, seed=seed)[1]))) for seed in range(6)}) > 1


@KINDS
def test_split_by_seed_leaves_the_global_generators_alone(kind):
    torch.manual_seed(1)
    np.random.seed(1)
    wanted = torch.rand(1).item(), np.random.random()
    torch.manual_seed(1)
    np.random.seed(1)
    split(kind, 0.3)
    assert (torch.rand(1).item(), np.random.random()) == wanted


@KINDS
def test_split_without_seed_draws_from_the_global_generators(kind):
    found = []
    for seed in (1, 1, 2, 3, 4):
        torch.manual_seed(seed)
        np.random.seed(seed)
        found.append(tuple(labels(split(kind, 0.3, seed=None)[1])))
    assert found[0] == found[1]
    assert len(set(found)) > 1


@pytest.mark.parametrize(
    ("count", "ratio", "down", "up"),
    [(10, 0.25, 2, 3), (10, 0.05, 0, 1), (100, 0.29, 29, 29), (10, 0.7, 7, 7), (3, 0.5, 1, 2), (10, 0.999, 9, 10), (1, 0.5, 0, 1)],
)
def test_torch_rounds_down_and_scikit_learn_up(count, ratio, down, up):
    data, target = np.zeros((count, 1)), np.arange(count)
    for kind, kept in ((TORCH, down), (SKLEARN, up)):
        train, test = split(kind, ratio, data=data, target=target)
        assert (len(labels(train)), len(labels(test))) == (count - kept, kept)


@KINDS
def test_ratio_zero_keeps_the_order_and_has_no_test_samples(kind):
    train, test = split(kind, 0.0)
    assert labels(train) == list(range(10))
    assert test is None if kind is TORCH else len(test) == 0


@KINDS
def test_ratio_one_has_no_training_samples(kind):
    train, test = split(kind, 1.0)
    assert train is None if kind is TORCH else len(train) == 0
    assert sorted(labels(test)) == list(range(10))


@KINDS
def test_whole_number_as_ratio_is_taken_at_the_ends(kind):
    assert len(labels(split(kind, 1)[1])) == 10
    assert len(labels(split(kind, 0)[0])) == 10


@KINDS
@pytest.mark.parametrize("wrong", [-0.1, 1.1, 2, "0.5", None, True, float("nan")])
def test_other_ratios_are_refused(kind, wrong):
    with pytest.raises(FedbiomedDataManagerError, match="test_ratio must be a number from 0 to 1"):
        split(kind, wrong)


@KINDS
def test_test_loader_gives_all_at_once_whatever_the_loader_arguments(kind):
    test = split(kind, 0.5, batch_size=2, shuffle=True, drop_last=True)[1]
    assert batches(test) == [5]
    assert labels(test) == labels(test)


@KINDS
def test_split_before_load_is_a_clear_error(kind):
    with pytest.raises(FedbiomedDataManagerError, match=r"call load\(\)"):
        DataManager(X, Y).split(0.5)


@KINDS
def test_no_samples_give_no_batches(kind):
    train, test = split(kind, 0.5, data=np.zeros((0, 2)), target=np.zeros(0))
    assert (labels(train), labels(test)) == ([], [])


# --- forms of data


@KINDS
@pytest.mark.parametrize(
    ("data", "target"),
    [
        (pd.DataFrame(X), pd.Series(Y)),
        (pd.DataFrame(X), pd.DataFrame(Y)),
        (pd.DataFrame(X), Y),
        (X, pd.Series(Y, index=range(100, 110))),
        (X.astype(np.float32), Y.astype(np.int8)),
        (pd.DataFrame(X.astype(object)), Y > 100),
        (np.asfortranarray(X), Y[::-1][::-1]),
    ],
)
def test_arrays_frames_and_series_are_taken(kind, data, target):
    train, _ = split(kind, 0.0, data=data, target=target, batch_size=10)
    (pair,) = train
    assert np.array_equal(np.asarray(pair[0]), X)
    assert np.asarray(pair[1]).size == 10


@KINDS
def test_series_of_inputs_is_taken(kind):
    train, _ = split(kind, 0.0, data=pd.Series(Y), batch_size=10)
    (pair,) = train
    assert np.asarray(pair[0]).ravel().tolist() == list(range(10))


@KINDS
def test_lengths_that_differ_are_a_clear_error(kind):
    with pytest.raises(FedbiomedError, match="dataset has 10 samples, target 9"):
        split(kind, 0.5, target=Y[:9])
    with pytest.raises(FedbiomedError, match="dataset has 10 samples, target 11"):
        split(kind, 0.0, target=np.arange(11))


@KINDS
@pytest.mark.parametrize(
    ("data", "target"),
    [(X, None), ([[1.0]], [1]), ("data.csv", None), (None, None), (X, [0] * 10), ({"a": 1}, None), (TensorDataset(torch.ones(3)), Y)],
)
def test_other_data_are_a_clear_error(kind, data, target):
    with pytest.raises(FedbiomedDataManagerError):
        split(kind, 0.5, data=data, target=target)


@KINDS
def test_text_columns_are_a_clear_error(kind):
    with pytest.raises(FedbiomedDataManagerError, match="not numbers; encode or drop"):
        split(kind, 0.5, data=pd.DataFrame({"a": [1.0] * 10, "b": ["x"] * 10}))


@KINDS
def test_data_are_not_changed_and_training_does_not_reach_them(kind):
    data, target = X.astype(np.float32), Y.copy()
    train, _ = split(kind, 0.0, data=data, target=target, batch_size=10)
    for inputs, _ in train:
        inputs[:] = 0
    assert np.array_equal(data, X)
    assert np.array_equal(target, Y)


def test_read_only_frames_are_taken_without_a_warning():
    rows = X.copy()
    rows.setflags(write=False)
    assert labels(split(TORCH, 0.0, data=rows)[0]) == list(range(10))


def test_unknown_library_is_a_clear_error():
    with pytest.raises(FedbiomedDataManagerError, match="data are loaded for one of"):
        DataManager(X, Y).load(tp_type="torch")


# --- torch


def test_tabular_dataset_is_float32_and_keeps_its_shapes():
    dataset = TabularDataset(X, Y)
    assert len(dataset) == 10
    assert (dataset.inputs.dtype, dataset.target.dtype) == (torch.float32, torch.float32)
    assert (dataset[3][0].tolist(), dataset[3][1].item()) == ([6.0, 7.0], 3.0)
    assert TabularDataset(X, Y.reshape(-1, 1))[0][1].shape == (1,)


def test_torch_dataset_is_taken_as_it_is():
    dataset = TensorDataset(torch.ones(4, 3, 8, 8), torch.arange(4))
    manager = DataManager(dataset, batch_size=2)
    assert manager.dataset is dataset
    assert manager._dataset is dataset
    manager.load(tp_type=TORCH)
    assert manager.dataset is dataset
    assert manager._dataset is dataset
    assert [data.shape for data, _ in manager.split(0.0)[0]] == [(2, 3, 8, 8)] * 2


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
