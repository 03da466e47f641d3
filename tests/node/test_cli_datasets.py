"""`fedbiomed node dataset add` for every type, as an operator uses it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.medical import write_digits, write_picture, write_subjects
from tests.support.node_cli import refused, told, told_json

PLAN = {"name": "our scanners", "modalities_to_folders": {"T1": ["t1_mprage"], "label": ["seg"]}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node without datasets, and data of every kind beside it."""
    folder = tmp_path_factory.mktemp("operator")
    told("create", "--dir", folder / "site")
    write_subjects(folder / "scans", ["1", "2"], ("t1_mprage", "seg"))
    (folder / "subjects.tsv").write_text("age\tid\n3\t1\n4\t2\n")
    (folder / "plan.json").write_text(json.dumps(PLAN))
    (folder / "empty").mkdir()
    write_picture(folder / "pictures" / "a" / "0.png")
    write_picture(folder / "archive" / "MedNIST" / "Hand" / "0.jpeg")
    write_digits(folder / "digits")
    return folder


def add(folder: Path, *options: str | Path, **environment: str) -> dict[str, Any]:
    """Add a dataset, look at it and remove it again."""
    dataset_id = told("dataset", "add", "--dir", folder / "site", *options, **environment)
    (row,) = told_json("dataset", "list", "--dir", folder / "site")
    assert dataset_id in told("dataset", "list", "--dir", folder / "site")
    told("dataset", "remove", dataset_id, "--dir", folder / "site")
    found: dict[str, Any] = row
    return found


@pytest.mark.parametrize(
    ("kind", "path", "kept", "shape"),
    [
        ("images", "pictures", "pictures", [1, 3, 4, 6]),
        ("mednist", "archive", "archive/MedNIST", [1, 3, 4, 6]),
        ("default", "digits", "digits", [60, 1, 28, 28]),
    ],
)
def test_folders_of_pictures(folder: Path, kind: str, path: str, kept: str, shape: list[int]) -> None:
    row = add(folder, "--type", kind, "--path", folder / path, "--name", "n", "--tags", "#t,#dataset")
    assert (row["data_type"], row["path"], row["shape"], row["tags"]) == (kind, str(folder / kept), shape, ["#t", "#dataset"])


@pytest.mark.parametrize("column", ["id", "1"])
def test_a_medical_folder(folder: Path, column: str) -> None:
    row = add(
        folder,
        *("--type", "medical-folder", "--path", folder / "scans", "--name", "n", "--tags", "t"),
        *("--tabular-file", folder / "subjects.tsv", "--index-col", column, "--loading-plan", folder / "plan.json"),
    )
    assert row["shape"] == {"T1": [4, 5, 3], "label": [4, 5, 3], "demographics": [2, 1], "num_modalities": 2}
    assert row["dataset_parameters"] == {"tabular_file": str(folder / "subjects.tsv"), "index_col": 1 if column == "1" else "id"}
    assert row["dlp_id"].startswith("dlp_")


@pytest.mark.parametrize("plan", ["$DATA/plan.json", PLAN])
def test_a_medical_folder_from_a_file(folder: Path, tmp_path: Path, plan: Any) -> None:
    description = {
        "path": "$DATA/scans",
        "data_type": "medical-folder",
        "name": "n",
        "tags": ["a, b", "c"],
        "dataset_parameters": {"tabular_file": "../subjects.tsv", "index_col": "id"},
        "loading_plan": plan,
    }
    (tmp_path / "d.json").write_text(json.dumps(description))
    row = add(folder, "--from-json", tmp_path / "d.json", DATA=str(folder))
    assert (row["path"], row["tags"]) == (str(folder / "scans"), ["a, b", "c"])
    assert row["dataset_parameters"]["tabular_file"] == str(folder / "subjects.tsv")
    assert row["dlp_id"].startswith("dlp_")


ADD = {"--type": "medical-folder", "--path": "scans", "--name": "n", "--tags": "t"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"--path": "empty"}, "holds no folder; a medical folder is"),
        ({"--type": "nifti"}, "no dataset type 'nifti'; there are csv, default, flamby, images, medical-folder, mednist"),
        ({"--type": "images", "--path": "empty"}, "holds no folder with a file that ends in"),
        ({"--type": "mednist", "--path": "empty"}, "nothing is downloaded here"),
        ({"--tabular-file": "subjects.tsv"}, "needs both tabular_file (a path) and index_col"),
        ({"--tabular-file": "subjects.tsv", "--index-col": "name"}, "has no column 'name'; it has 2: age, id"),
        ({"--loading-plan": "nowhere.json"}, "cannot read nowhere.json: No such file"),
        ({"--loading-plan": "subjects.tsv"}, "subjects.tsv is not JSON"),
        ({"--loading-plan": "bad.json"}, "bad.json: FB615: data loading plan error: modality 'T1' must be mapped to a list"),
        ({"--type": "flamby", "--path": None}, "needs a loading plan"),
        ({"--path": None}, "a dataset needs --path"),
    ],
)
def test_what_is_wrong_is_one_line(folder: Path, change: dict[str, str | None], reason: str) -> None:
    (folder / "bad.json").write_text('{"name": "plan", "modalities_to_folders": {"T1": "t1"}}')
    options = [part for key, value in (ADD | change).items() if value is not None for part in (key, value)]
    assert reason in refused("dataset", "add", "--dir", folder / "site", *options, cwd=folder)
    assert told_json("dataset", "list", "--dir", folder / "site") == []
