"""Datasets with tables and loading plans in the node's database: what is kept, what others see, what is refused."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedbiomed.common.data.loading_plan import DataLoadingPlan, plan_from_json
from fedbiomed.common.exceptions import FedbiomedDatasetManagerError
from fedbiomed.node.datasets import DatasetRegistry, public_view
from fedbiomed.node.loading_plans import LoadingPlanStore
from fedbiomed.node.store import MIGRATIONS, NodeStore
from tests.support.medical import write_picture, write_subjects

IXI = plan_from_json({"name": "ixi0", "flamby_dataset_metadata": {"flamby_dataset_name": "fed_ixi", "flamby_center_id": 0}})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[NodeStore]:
    with NodeStore(tmp_path / "node.sqlite") as store:
        yield store


@pytest.fixture
def registry(store: NodeStore) -> DatasetRegistry:
    return DatasetRegistry(store)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    return write_subjects(tmp_path / "scans", ["a", "b"], ("t1_mprage", "seg"))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "subjects.csv"
    path.write_text("age,id\n3,a\n4,b\n")
    return path


def our_plan(name: str = "our scanners", **folders: list[str]) -> DataLoadingPlan:
    return plan_from_json({"name": name, "modalities_to_folders": folders or {"T1": ["t1_mprage"], "label": ["seg"]}})


def add(registry: DatasetRegistry, path: Path | None, tags: str, **more: Any) -> dict[str, Any]:
    return registry.add(**{"name": "scans", "data_type": "medical-folder", "tags": [tags], "path": path, **more})


def test_a_folder_with_table_and_plan(registry: DatasetRegistry, store: NodeStore, scans: Path, table: Path) -> None:
    parameters = {"tabular_file": str(table), "index_col": "id"}
    plan = our_plan()
    row = add(registry, scans, "mri", dataset_parameters=parameters, loading_plan=plan)
    assert row["shape"] == {"T1": [4, 5, 3], "label": [4, 5, 3], "demographics": [2, 1], "num_modalities": 2}
    assert (row["dlp_id"], row["dataset_parameters"], row["path"]) == (plan.dlp_id, parameters, str(scans))
    assert registry.all() == [row]
    assert registry.get(row["dataset_id"]) == row
    kept = registry.loading_plan(row)
    assert kept is not None
    again = DataLoadingPlan().deserialize(*kept)
    assert (again.desc, again.target_dataset_type, plan.target_dataset_type) == ("our scanners", "medical-folder", "none")
    assert LoadingPlanStore(store).all() == [kept]


def test_others_see_neither_path_nor_table(registry: DatasetRegistry, scans: Path, table: Path) -> None:
    row = add(registry, scans, "mri", dataset_parameters={"tabular_file": str(table), "index_col": 1}, loading_plan=our_plan())
    seen = public_view(row)
    assert seen.keys() == row.keys() - {"path"}
    assert seen["dataset_parameters"] == {"index_col": 1}
    assert str(table.parent) not in str(seen)
    assert row["dataset_parameters"]["tabular_file"] == str(table)


def test_a_dataset_without_plan_has_no_dlp_id(registry: DatasetRegistry, scans: Path) -> None:
    row = add(registry, scans, "mri")
    assert "dlp_id" not in row
    assert "dlp_id" not in registry.all()[0]
    assert registry.loading_plan(row) is None


def test_relative_tables_become_absolute(registry: DatasetRegistry, scans: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(table.parent)
    row = add(registry, Path("scans"), "mri", dataset_parameters={"tabular_file": "subjects.csv", "index_col": "id"})
    assert (row["path"], row["dataset_parameters"]["tabular_file"]) == (str(scans), str(table))


def test_a_plan_lives_as_long_as_its_datasets(registry: DatasetRegistry, store: NodeStore, scans: Path) -> None:
    plan = our_plan()
    rows = [add(registry, scans, tags, loading_plan=plan) for tags in ("x", "y")]
    registry.remove(rows[0]["dataset_id"])
    assert len(LoadingPlanStore(store).all()) == 1
    registry.remove(rows[1]["dataset_id"])
    assert LoadingPlanStore(store).all() == []
    add(registry, scans, "x", loading_plan=our_plan())


def test_names_of_plans_are_unique_and_long_enough(registry: DatasetRegistry, store: NodeStore, scans: Path) -> None:
    plan = our_plan()
    add(registry, scans, "x", loading_plan=plan)
    with pytest.raises(FedbiomedDatasetManagerError, match="FB322: a loading plan called 'our scanners' is there already"):
        add(registry, scans, "y", loading_plan=our_plan())
    with pytest.raises(FedbiomedDatasetManagerError, match="FB322: the name of a loading plan has 4 to 200 characters, not 'abc'"):
        add(registry, scans, "y", loading_plan=our_plan("abc"))
    plan.desc = "another name"
    with pytest.raises(FedbiomedDatasetManagerError, match=r"FB322: the id dlp_.* stands for another loading plan, 'our scanners'"):
        add(registry, scans, "y", loading_plan=plan)
    assert (len(registry.all()), len(LoadingPlanStore(store).all())) == (1, 1)


def test_a_tag_conflict_keeps_no_plan(registry: DatasetRegistry, store: NodeStore, scans: Path) -> None:
    add(registry, scans, "x")
    with pytest.raises(FedbiomedDatasetManagerError, match="FB322: tags x conflict"):
        add(registry, scans, "x", loading_plan=our_plan())
    assert LoadingPlanStore(store).all() == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dataset_parameters": {"tabular_file": "/nowhere.csv", "index_col": 0}}, "/nowhere.csv is not there"),
        ({"dataset_parameters": {"tabular_file": "TABLE", "index_col": "no"}}, "has no column 'no'; it has 2: age, id"),
        ({"dataset_parameters": {"tabular_file": "TABLE"}}, "needs both tabular_file"),
        ({"dataset_parameters": {"tabular_file": 3, "index_col": 0}}, "needs both tabular_file"),
        ({"dataset_parameters": {"index": 0}}, "no parameter 'index'; it has index_col, tabular_file"),
        ({"loading_plan": our_plan(T1=["t1_mprage"], T2=["t2"])}, "T1: 2, T2: 0; complete the folders"),
        (
            {"loading_plan": IXI},
            "holds modalities_to_folders; this one holds flamby_dataset_metadata",
        ),
        ({"data_type": "default", "loading_plan": our_plan()}, "a dataset of type default takes no loading plan"),
        ({"data_type": "medical_folder"}, "no dataset type 'medical_folder'; there are csv, default"),
        ({"data_type": "flamby", "path": None}, "needs a loading plan that holds flamby_dataset_metadata"),
        ({"data_type": "flamby"}, "a dataset of this type has no path"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_and_changes_nothing(
    registry: DatasetRegistry, scans: Path, table: Path, change: dict[str, Any], reason: str
) -> None:
    given = {**change}
    if given.get("dataset_parameters", {}).get("tabular_file") == "TABLE":
        given["dataset_parameters"] = {**given["dataset_parameters"], "tabular_file": str(table)}
    with pytest.raises(FedbiomedDatasetManagerError, match="FB322: cannot register 'scans': ") as caught:
        add(registry, **{"path": scans, "tags": "x", **given})
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert registry.all() == []


def test_a_plan_for_another_type_is_refused(registry: DatasetRegistry, scans: Path) -> None:
    plan = our_plan()
    plan.target_dataset_type = "flamby"  # type: ignore[assignment]
    with pytest.raises(FedbiomedDatasetManagerError, match="is for datasets of type flamby, not medical-folder"):
        add(registry, scans, "x", loading_plan=plan)


def test_a_table_that_has_gone_is_told_without_its_path(registry: DatasetRegistry, scans: Path, table: Path) -> None:
    row = add(registry, scans, "x", dataset_parameters={"tabular_file": str(table), "index_col": "id"})
    table.unlink()
    with pytest.raises(FedbiomedDatasetManagerError, match="FB313: the data of dataset 'scans'") as caught:
        registry.get(row["dataset_id"])
    assert str(table.parent) not in str(caught.value)


def test_the_path_of_mednist_is_the_folder_of_its_classes(registry: DatasetRegistry, tmp_path: Path) -> None:
    write_picture(tmp_path / "MedNIST" / "Hand" / "0.jpeg")
    row = add(registry, tmp_path, "#MEDNIST", data_type="mednist")
    assert (row["path"], row["shape"]) == (str(tmp_path / "MedNIST"), [1, 3, 4, 6])


def test_a_database_from_before_loading_plans_is_read(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "old.sqlite")
    for statement in MIGRATIONS[0]:
        old.execute(statement)
    old.execute(
        "INSERT INTO datasets VALUES ('dataset_1', 'old', 'csv', '[\"t\"]', '', '[1, 1]', ?, '[\"int64\"]', '{}')",
        (str(tmp_path / "t.csv"),),
    )
    old.execute("PRAGMA user_version=1")
    old.commit()
    old.close()
    (tmp_path / "t.csv").write_text("a\n1\n")
    with NodeStore(tmp_path / "old.sqlite") as store:
        registry = DatasetRegistry(store)
        row = registry.get("dataset_1")
        assert (row["name"], row["path"], "dlp_id" in row) == ("old", str(tmp_path / "t.csv"), False)
        scans = write_subjects(tmp_path / "scans", ["a"])
        assert add(registry, scans, "x", loading_plan=our_plan(T1=["T1"]))["dlp_id"].startswith("dlp_")
