"""Which batches are gone over and which are reported."""

import pytest

from fedbiomed.common.exceptions import FedbiomedTrainingPlanError, FedbiomedUserInputError
from fedbiomed.common.training_plans.iterations import first_length, training_batches


class Rows:
    """A loader of lists; counts how often it was begun and how many batches were taken."""

    def __init__(self, count, batch_size):
        self.dataset = list(range(count))
        self.batch_size = batch_size
        self.begun = 0
        self.taken = 0

    def __len__(self):
        return (len(self.dataset) + self.batch_size - 1) // self.batch_size

    def __iter__(self):
        self.begun += 1
        for first in range(0, len(self.dataset), self.batch_size):
            self.taken += 1
            rows = self.dataset[first : first + self.batch_size]
            yield [bytes(rows)], rows


def args(**given):
    return {"epochs": None, "num_updates": None, "batch_maxnum": None, "log_interval": 10, "dry_run": False, **given}


def rows_of(loader, **given):
    return [batch.target for batch in training_batches(loader, args(**given))]


def reported(loader, **given):
    return [index for index, batch in enumerate(training_batches(loader, args(**given))) if batch.is_reported]


def test_epochs_go_over_all_batches_each_time():
    assert rows_of(Rows(5, 2), epochs=2) == [[0, 1], [2, 3], [4]] * 2


@pytest.mark.parametrize(("cap", "batches"), [(None, 3), (0, 3), (1, 1), (2, 2), (3, 3), (100, 3)])
def test_cap_of_batches_holds_in_each_epoch(cap, batches):
    assert len(rows_of(Rows(5, 2), epochs=4, batch_maxnum=cap)) == 4 * batches


def test_no_batch_is_read_beyond_what_is_used():
    capped, updated = Rows(100, 1), Rows(100, 1)
    rows_of(capped, epochs=2, batch_maxnum=3)
    rows_of(updated, num_updates=7)
    assert (capped.taken, updated.taken) == (6, 7)


def test_a_loader_that_gives_nothing_is_not_asked_for_ever():
    class Silent(Rows):
        def __iter__(self):
            return iter(())

    with pytest.raises(FedbiomedTrainingPlanError, match="says that it has 3 batches, and gives none"):
        rows_of(Silent(5, 2), num_updates=1)
    assert rows_of(Silent(5, 2), epochs=2) == []


@pytest.mark.parametrize(("updates", "begun"), [(0, 0), (1, 1), (3, 1), (4, 2), (6, 2), (7, 3)])
def test_updates_are_exactly_as_many_in_whole_passes_and_a_rest(updates, begun):
    loader = Rows(5, 2)
    whole = [[0, 1], [2, 3], [4]] * 3
    assert rows_of(loader, num_updates=updates) == whole[:updates]
    assert loader.begun == begun


def test_updates_go_before_epochs_and_cap_and_that_is_said(caplog):
    assert len(rows_of(Rows(5, 2), num_updates=4, epochs=9, batch_maxnum=1)) == 4
    assert "epochs and batch_maxnum are left out" in caplog.text


def test_dry_run_is_one_batch():
    loader = Rows(5, 2)
    assert rows_of(loader, epochs=3, dry_run=True) == [[0, 1]]
    assert loader.taken == 1


def test_dry_run_is_reported():
    assert reported(Rows(100, 1), epochs=1, dry_run=True) == [0]


def test_no_epoch_is_no_batch():
    assert rows_of(Rows(5, 2), epochs=0) == []


def test_neither_is_a_clear_error():
    with pytest.raises(FedbiomedUserInputError, match="`epochs` or `num_updates`"):
        rows_of(Rows(5, 2))


def test_first_last_and_each_interval_of_the_whole_training_are_reported():
    # 7 batches an epoch, two epochs, interval 5: batches 5 and 10 (indices 4 and 9), edges 0, 6, 7, 13
    assert reported(Rows(7, 1), epochs=2, log_interval=5) == [0, 4, 6, 7, 9, 13]


def test_edges_of_each_pass_are_reported_with_updates_too():
    # 4 batches a pass, 6 updates, interval 5: edges 0, 3, 4, the last 5; index 4 is the 5th
    assert reported(Rows(4, 1), num_updates=6, log_interval=5) == [0, 3, 4, 5]


def test_one_batch_an_epoch_is_always_reported():
    assert reported(Rows(2, 2), epochs=3) == [0, 1, 2]


def test_a_batch_says_where_it_stands():
    batches = list(training_batches(Rows(5, 2), args(epochs=2)))
    assert [(b.epoch, b.iteration, b.num_batches, b.size, b.samples_before, b.total_samples) for b in batches] == [
        (1, 1, 3, 2, 0, 5),
        (1, 2, 3, 2, 2, 5),
        (1, 3, 3, 1, 4, 5),
        (2, 1, 3, 2, 0, 5),
        (2, 2, 3, 2, 2, 5),
        (2, 3, 3, 1, 4, 5),
    ]


def test_counters_of_updates_go_on():
    batches = list(training_batches(Rows(3, 2), args(num_updates=4)))
    assert [(b.epoch, b.iteration, b.num_batches, b.samples_before) for b in batches] == [
        (None, 1, 4, 0),
        (None, 2, 4, 2),
        (None, 3, 4, 3),
        (None, 4, 4, 5),
    ]


@pytest.mark.parametrize("strange", [[1, 2, 3], 7, (1,)])
def test_what_is_no_pair_is_a_clear_error(strange):
    class Odd(Rows):
        def __iter__(self):
            yield strange

    with pytest.raises(FedbiomedTrainingPlanError, match="pairs of data and target"):
        rows_of(Odd(1, 1), epochs=1)


@pytest.mark.parametrize(("data", "length"), [(["abc"], 3), ({"a": {"b": ["ab"]}, "c": "d"}, 2), (((("ab",), 1), 2), 2)])
def test_size_is_that_of_the_first_leaf(data, length):
    assert first_length(data) == length


@pytest.mark.parametrize("data", [3, [5], {"a": None}])
def test_data_without_length_are_a_clear_error(data):
    with pytest.raises(FedbiomedTrainingPlanError):
        first_length(data)
