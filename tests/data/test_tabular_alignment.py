"""One meaning of columns on all nodes."""

import numpy as np
import pandas as pd
import pytest

from fedbiomed.common.data import TabularSchema, table_statistics
from fedbiomed.common.exceptions import FedbiomedDatasetError

A = pd.DataFrame({"age": [20.0, 40.0, np.nan], "sex": ["f", "m", "f"], "id": [1, 2, 3]})
B = pd.DataFrame({"sex": ["f", "x", "f"], "smoker": [True, False, True]})  # no age, no m


@pytest.fixture
def schema():
    return TabularSchema.union([table_statistics(A, 1, leave_out=["id"]), table_statistics(B, 1)])


def test_a_node_without_a_category_and_one_without_a_column_have_the_same_columns(schema):
    assert schema.titles() == [
        "age", "age=missing", "sex=f", "sex=m", "sex=x", "sex=unseen", "smoker=False", "smoker=True", "smoker=unseen",
    ]  # fmt: skip
    # ages 20 to 40: 0, 1, and a missing one; A has no smoker, so its column "unseen" is 1
    assert schema.transform(A).tolist() == [[0, 0, 1, 0, 0, 0, 0, 0, 1], [1, 0, 0, 1, 0, 0, 0, 0, 1], [0, 1, 1, 0, 0, 0, 0, 0, 1]]
    assert schema.transform(B).tolist() == [[0, 1, 1, 0, 0, 0, 0, 1, 0], [0, 1, 0, 0, 1, 0, 1, 0, 0], [0, 1, 1, 0, 0, 0, 0, 1, 0]]


def test_an_unseen_category_has_a_column_and_one_scale_holds_for_all(schema):
    row = schema.transform(pd.DataFrame({"age": [60], "sex": ["other"]}))[0]
    told = {title: value for title, value in zip(schema.titles(), row, strict=True) if value}
    assert told == {"age": 2.0, "sex=unseen": 1.0, "smoker=unseen": 1.0}


def test_ranges_are_those_of_all_nodes():
    schema = TabularSchema.union([{"x": {"minimum": 1.0, "maximum": 3.0}}, {"x": {"minimum": -1.0, "maximum": 2.0}}])
    assert schema.transform(pd.DataFrame({"x": [1.0]})).tolist() == [[0.5, 0.0]]
    constant = TabularSchema.union([{"x": {"minimum": 2.0, "maximum": 2.0}}])
    assert constant.transform(pd.DataFrame({"x": [2.0]})).tolist() == [[0.0, 0.0]]


def test_rare_categories_and_small_columns_are_not_told():
    table = pd.DataFrame({"kind": ["a"] * 5 + ["rare"], "x": [1.0, np.nan, np.nan, np.nan, np.nan, np.nan]})
    assert table_statistics(table) == {"kind": {"categories": ["a"]}}


def test_the_order_of_nodes_does_not_matter_and_json_gives_it_back(schema):
    assert TabularSchema.union([table_statistics(B, 1), table_statistics(A, 1, leave_out=["id"])]) == schema
    assert TabularSchema.from_dict(schema.to_dict()) == schema


def test_what_does_not_fit_is_refused(schema):
    with pytest.raises(FedbiomedDatasetError, match="'x' holds numbers on one node and text on another"):
        TabularSchema.union([{"x": {"minimum": 1, "maximum": 2}}, {"x": {"categories": ["a"]}}])
    with pytest.raises(FedbiomedDatasetError, match="no node told"):
        TabularSchema.union([{}])
    with pytest.raises(FedbiomedDatasetError, match="no column 'nr' to be left out"):
        table_statistics(A, leave_out=["nr"])
    with pytest.raises(FedbiomedDatasetError, match="'when' holds datetime64"):
        table_statistics(pd.DataFrame({"when": pd.to_datetime(["2020-01-01"])}), 1)
    with pytest.raises(FedbiomedDatasetError, match="'age' is numeric in the schema"):
        schema.transform(pd.DataFrame({"age": ["old"]}))
