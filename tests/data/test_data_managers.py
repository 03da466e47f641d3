"""Data managers: splits."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import TensorDataset

from fedbiomed.common.data import DataManager, TabularDataset
from fedbiomed.common.exceptions import FedbiomedDataManagerError, FedbiomedError
from tests.support.loaders import KINDS, SKLEARN, TORCH, X, Y, batches, labels, split

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
    assert labels(split(kind, 1.0, data=X[:1], target=Y[:1])[1]) == [0]


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
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (np.full(10, 1 + 2j), "not numbers"),
        (pd.DataFrame({"seen": pd.to_datetime(["2020-01-01"] * 10)}), "not numbers"),
        (np.zeros(10, dtype="m8[s]"), "not numbers"),
        (np.array(3.0), "a single value"),
    ],
    ids=["complex", "dates", "durations", "one value"],
)
def test_what_is_no_table_of_numbers_is_not_made_one(kind, data, reason):
    with pytest.raises(FedbiomedDataManagerError, match=reason):
        split(kind, 0.0, data=data)


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
