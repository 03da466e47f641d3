"""What the operator registers: what is found in it, which tags conflict, what a researcher may see."""

import gzip
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedbiomed.common.data.datasets.dataset_type import load_type, type_names
from fedbiomed.common.exceptions import FedbiomedDatasetError, FedbiomedDatasetManagerError, FedbiomedPluginError
from fedbiomed.node.datasets import DatasetRegistry, public_view
from fedbiomed.node.store import NodeStore

NONE: dict[str, object] = {}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[DatasetRegistry]:
    with NodeStore(tmp_path / "node.sqlite") as store:
        yield DatasetRegistry(store)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "patients.csv"
    path.write_text("age,sex,weight\n63,m,70.5\n51,f,\n44,f,58\n")
    return path


def idx(folder: Path, ending: str = "", magic: int = 2051) -> None:
    """Three images of 4 x 5 in MNIST's format, and their labels."""
    folder.mkdir(parents=True)
    images = struct.pack(">4I", magic, 3, 4, 5) + bytes(60)
    labels = struct.pack(">2I", 2049, 3) + bytes(3)
    for name, content in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)):
        (folder / f"{name}{ending}").write_bytes(gzip.compress(content) if ending else content)


@pytest.mark.parametrize("name", [name for name in type_names() if load_type(name).has_path])
def test_every_type_refuses_what_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(FedbiomedDatasetError, match="nowhere is not there"):
        load_type(name).describe(tmp_path / "nowhere", NONE)


@pytest.mark.parametrize("name", ["dataset_type", "nifti", "../x", "os", ""])
def test_a_type_that_is_no_file_of_the_family_is_refused(name: str) -> None:
    with pytest.raises(FedbiomedPluginError, match="there are csv, default"):
        load_type(name)


@pytest.mark.parametrize(
    ("text", "shape", "dtypes"),
    [
        ("a,b\n1,2.5\n3,4.5\n", (2, 2), ("int64", "float64")),
        ("a;b\n1,5;2\n2,5;3\n3,5;3\n", (3, 2), None),
        ("a\tb\tc\n1\t2\t3\n", (1, 3), None),
        ("a|b\n1|2\n", (1, 2), None),
        ("only\n1\n2\n", (2, 1), ("int64",)),
        ('name,"note, long"\nx,"a, b"\ny,"c\nd"\n', (2, 2), None),
        ("\ufeffa,b\r\n1,2\r\n\r\n3,4\r\n", (2, 2), ("int64", "int64")),
        ("city,country\nParis,F\nRome,I\n", (2, 2), None),
        ("id,1990,1991\n1,2,3\n", (1, 3), None),
        (",0,1\n0,5,6\n", (1, 3), None),
        ("0,1,2\n5.0,6.0,7.0\n", (1, 3), None),
        ("a,b\n1,true\n2,false\n", (2, 2), ("int64", "bool")),
    ],
)
def test_a_table_is_described(tmp_path: Path, text: str, shape: tuple[int, ...], dtypes: tuple[str, ...] | None) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    found = load_type("csv").describe(path, NONE)
    assert found.shape == shape
    assert len(found.dtypes) == shape[1]
    assert dtypes is None or found.dtypes == dtypes


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"63.0,1.0,?,145\n67.0,1.0,4.0,160\n", "has no header: its first row is '63.0,1.0,\\?,145'"),
        (b"M,63.0\nF,67.0\n", "has no header"),
        (b"1\n2\n", "has no header"),
        (b"", "is empty"),
        (b"a,b\n", "has a header but no rows"),
        (b"a,b\n1,2,3\n", "row 1 has 3 fields, the header 2"),
        (b"a,b\n" + b"1,2\n" * 300 + b"1,2,3\n", "line 302"),
        (b"a,\xff\n1,2\n", "not UTF-8"),
        (b"a,b\n" + b"1,2\n" * 50_000 + b"1,\xff\n", "cannot read .* as csv: 'utf-8' codec"),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(FedbiomedDatasetError, match=reason):
        load_type("csv").describe(path, NONE)


def test_a_folder_is_no_table_and_a_file_no_folder(tmp_path: Path, table: Path) -> None:
    with pytest.raises(FedbiomedDatasetError, match="is a folder; a csv dataset is one file"):
        load_type("csv").describe(tmp_path, NONE)
    with pytest.raises(FedbiomedDatasetError, match="is a file; a dataset of this type is a folder"):
        load_type("default").describe(table, NONE)


@pytest.mark.parametrize("below", [".", "raw", "MNIST/raw"])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_mnist_is_described_by_its_header(tmp_path: Path, below: str, ending: str) -> None:
    idx(tmp_path / "digits" / below, ending)
    assert load_type("default").describe(tmp_path / "digits", NONE).shape == (3, 1, 4, 5)


def test_a_broken_mnist_is_refused(tmp_path: Path) -> None:
    idx(tmp_path / "a", magic=7)
    with pytest.raises(FedbiomedDatasetError, match="not a file of IDX images"):
        load_type("default").describe(tmp_path / "a", NONE)
    idx(tmp_path / "b")
    (tmp_path / "b" / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FedbiomedDatasetError, match="but not train-labels"):
        load_type("default").describe(tmp_path / "b", NONE)
    idx(tmp_path / "c", ".gz")
    (tmp_path / "c" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"x" * 99)[:12])
    with pytest.raises(FedbiomedDatasetError, match="cannot read"):
        load_type("default").describe(tmp_path / "c", NONE)


def test_any_other_folder_counts_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    (folder / "a").mkdir(parents=True)
    with pytest.raises(FedbiomedDatasetError, match="holds no file"):
        load_type("default").describe(folder, NONE)
    for name in ("1.png", "a/2.png"):
        (folder / name).touch()
    assert load_type("default").describe(folder, NONE).shape == (2,)


def test_a_dataset_is_registered_found_and_removed(registry: DatasetRegistry, table: Path) -> None:
    row = registry.add(
        name="patients", data_type="csv", tags=["heart", " 2024 ", "heart"], path=table, description="a ward", dataset_parameters={"k": [1]}
    )
    assert list(row) == ["name", "data_type", "tags", "description", "shape", "path", "dataset_id", "dtypes", "dataset_parameters"]
    assert row["dataset_id"].startswith("dataset_")
    assert row["tags"] == ["heart", "2024"]
    assert row["shape"] == [3, 3]
    assert row["path"] == str(table)
    assert registry.all() == [row]
    assert registry.get(row["dataset_id"]) == row
    assert registry.remove(row["dataset_id"]) == row
    assert registry.all() == []
    assert table.exists()


def test_search_wants_all_tags(registry: DatasetRegistry, table: Path) -> None:
    first = registry.add(name="one", data_type="csv", tags=["a", "b"], path=table)
    second = registry.add(name="two", data_type="csv", tags=["b", "c"], path=table)
    assert registry.search(["b"]) == [first, second]
    assert registry.search(["c", "b"]) == [second]
    assert registry.search(["a", "c"]) == []
    assert registry.search([]) == [first, second]


@pytest.mark.parametrize("tags", [["a", "b"], ["a"], ["b", "a", "c"]])
def test_tags_that_contain_each_other_conflict(registry: DatasetRegistry, table: Path, tags: list[str]) -> None:
    registry.add(name="one", data_type="csv", tags=["a", "b"], path=table)
    with pytest.raises(FedbiomedDatasetManagerError, match=r"FB322: tags .* conflict with a, b of dataset 'one'"):
        registry.add(name="two", data_type="csv", tags=tags, path=table)
    assert len(registry.all()) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": " "}, "FB322: the name"),
        ({"name": "x" * 201}, "FB322: the name"),
        ({"description": "x" * 4001}, "FB322: the description"),
        ({"tags": []}, "FB322: a dataset has 1 to"),
        ({"tags": [" ", ""]}, "FB322: a dataset has 1 to"),
        ({"tags": "heart"}, "FB322: tags are a list"),
        ({"tags": ["t" * 101]}, "FB322: a dataset has 1 to"),
        ({"data_type": "tsv"}, "FB322: .*no dataset type 'tsv'; there are csv, default"),
        ({"path": None}, "FB322: cannot register 'n': a dataset of this type needs a path"),
        ({"path": Path("/nowhere/x.csv")}, "FB322: cannot register 'n': /nowhere/x.csv is not there"),
        ({"dataset_parameters": {"x": {1, 2}}}, "FB322: dataset_parameters"),
        ({"dataset_parameters": {"x": float("nan")}}, "FB322: dataset_parameters"),
        ({"dataset_parameters": {"x": "y" * 17_000}}, "FB322: dataset_parameters"),
        ({"dataset_parameters": [1]}, "FB322: dataset_parameters"),
    ],
)
def test_wrong_arguments_are_named_and_change_nothing(
    registry: DatasetRegistry, table: Path, change: dict[str, object], reason: str
) -> None:
    arguments = {"name": "n", "data_type": "csv", "tags": ["t"], "path": table} | change
    with pytest.raises(FedbiomedDatasetManagerError, match=reason):
        registry.add(**arguments)  # type: ignore[arg-type]
    assert registry.all() == []


def test_data_that_has_gone_is_told_without_its_path(registry: DatasetRegistry, table: Path) -> None:
    row = registry.add(name="patients", data_type="csv", tags=["t"], path=table)
    table.unlink()
    with pytest.raises(FedbiomedDatasetManagerError, match="FB313: the data of dataset 'patients'") as caught:
        registry.get(row["dataset_id"])
    assert str(table.parent) not in str(caught.value)


def test_data_that_cannot_be_looked_at_is_told(registry: DatasetRegistry, table: Path) -> None:
    row = registry.add(name="patients", data_type="csv", tags=["a"], path=table)
    with registry._store.transaction() as connection:
        connection.execute(
            "UPDATE datasets SET path = ?", ("/" + "x" * 300,)
        )  # as a folder that may not be read: the system refuses to look
    with pytest.raises(FedbiomedDatasetManagerError, match="FB313: the data of dataset 'patients'"):
        registry.get(row["dataset_id"])


def test_an_unknown_id_is_told(registry: DatasetRegistry) -> None:
    for ask in (registry.get, registry.remove):
        with pytest.raises(FedbiomedDatasetManagerError, match="FB313: this node has no dataset 'dataset_x'"):
            ask("dataset_x")


def test_others_do_not_see_the_path(registry: DatasetRegistry, table: Path) -> None:
    row = registry.add(name="patients", data_type="csv", tags=["t"], path=table)
    assert set(row) - set(public_view(row)) == {"path"}
