"""Medical folders: subjects, modalities, demographics, loading plans, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from fedbiomed.common.constants import TrainingPlans
from fedbiomed.common.data import (
    DataLoadingPlan,
    DataManager,
    MapperBlock,
    MedicalFolderBase,
    MedicalFolderController,
    MedicalFolderDataset,
    MedicalFolderLoadingBlockTypes,
)
from fedbiomed.common.data.datasets.dataset_type import load_type
from fedbiomed.common.exceptions import (
    FedbiomedDataLoadingPlanValueError,
    FedbiomedDatasetError,
    FedbiomedDatasetValueError,
    FedbiomedLoadingBlockError,
)
from tests.support.medical import write_nifti, write_subjects

SUBJECTS = ["007", "12", "anna"]


@pytest.fixture
def root(tmp_path):
    return write_subjects(tmp_path / "study", SUBJECTS)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "subjects.csv"
    path.write_text("folder,age,sex,smoker\nanna,51,f,True\n007,63.5,m,False\n12,40,f,True\n")
    return path


def folder_plan(**folders):
    block = MapperBlock()
    block.map = folders
    return DataLoadingPlan({MedicalFolderLoadingBlockTypes.MODALITIES_TO_FOLDERS: block})


# --- items


def test_an_item_has_images_and_empty_demographics(root):
    dataset = MedicalFolderDataset(root)
    assert len(dataset) == 3
    (data, demographics), targets = dataset[1]
    assert (list(data), list(targets)) == (["T1"], ["label"])
    assert (demographics.shape, demographics.dtype) == ((0,), torch.float32)
    assert data["T1"].dtype == torch.float32
    # Subject 12 has number 1: its T1 has the seed 10, its label 11.
    assert np.array_equal(data["T1"].numpy(), np.random.default_rng(10).normal(size=(4, 5, 3)).astype(np.float32))
    assert np.array_equal(targets["label"].numpy(), np.random.default_rng(11).normal(size=(4, 5, 3)).astype(np.float32))
    assert [folder.name for folder in dataset.subject_folders()] == SUBJECTS
    assert dataset.subject_folders()[0] == root / "007"
    with pytest.raises(IndexError):
        dataset[3]


def test_the_shape_is_by_modality(root, table):
    assert MedicalFolderDataset(root).shape() == {"T1": [4, 5, 3], "label": [4, 5, 3], "demographics": None, "num_modalities": 2}
    dataset = MedicalFolderDataset(root, tabular_file=table, index_col="folder")
    assert dataset.shape()["demographics"] == [3, 3]


@pytest.mark.parametrize("index_col", ["folder", 0])
def test_demographics_are_the_row_s_numbers(root, table, index_col):
    dataset = MedicalFolderDataset(root, tabular_file=table, index_col=index_col)
    assert [dataset[i][0][1].tolist() for i in range(3)] == [[63.5, 0.0], [40.0, 1.0], [51.0, 1.0]]


def test_demographics_are_what_the_transform_makes_of_the_row(root, table):
    rows = []

    def transform(row):
        rows.append(row)
        return torch.tensor([row["age"], row["sex"] == "f"])

    dataset = MedicalFolderDataset(root, demographics_transform=transform, tabular_file=str(table), index_col="folder")
    assert dataset[2][0][1].tolist() == [51.0, 1.0]
    assert rows == [{"age": 51.0, "sex": "f", "smoker": True}]
    assert dataset.get_nontransformed_item(0)[0][1] == {"age": 63.5, "sex": "m", "smoker": False}


def test_numeric_and_text_ids_in_tsv(tmp_path):
    root = write_subjects(tmp_path / "study", ["1", "2", "010"])
    path = tmp_path / "subjects.tsv"
    path.write_text("age\tid\n31\t1\n32\t2\n40\t010\n41\t999\n")
    dataset = MedicalFolderDataset(root, tabular_file=path, index_col="id")
    assert [(f.name, dataset[i][0][1].tolist()) for i, f in enumerate(dataset.subject_folders())] == [
        ("010", [40.0]),
        ("1", [31.0]),
        ("2", [32.0]),
    ]


def test_only_subjects_in_the_table_and_the_first_row_of_each(root, tmp_path):
    path = tmp_path / "subjects.csv"
    path.write_text("age,id\n31,anna\n77,anna\n32,12\n5,\n")
    dataset = MedicalFolderDataset(root, tabular_file=path, index_col=1)
    assert [folder.name for folder in dataset.subject_folders()] == ["12", "anna"]
    assert dataset[1][0][1].tolist() == [31.0]


def test_only_subjects_with_all_modalities(root):
    write_nifti(root / "007" / "T2" / "a.nii")
    (root / "12" / "T2").mkdir()  # empty: no image of that modality
    dataset = MedicalFolderDataset(root, data_modalities=["T1", "T2"])
    assert [folder.name for folder in dataset.subject_folders()] == ["007"]
    assert list(dataset[0][0][0]) == ["T1", "T2"]


def test_the_first_file_by_name_wins_and_others_are_left_out(root):
    wanted = write_nifti(root / "12" / "T1" / "0.nii", seed=99)
    (root / "12" / "T1" / "-.txt").write_text("notes")
    (root / ".cache").mkdir()
    (root / "README").write_text("notes")
    assert np.array_equal(MedicalFolderDataset(root)[1][0][0]["T1"].numpy(), wanted)
    assert len(MedicalFolderDataset(root)) == 3


def test_stored_integers_are_scaled_as_the_header_says(tmp_path):
    import nibabel

    root = write_subjects(tmp_path, ["a"])
    image = nibabel.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    image.header.set_slope_inter(2.0, 1.0)
    nibabel.save(image, root / "a" / "T1" / "0.nii.gz")
    stored = np.asarray(nibabel.load(root / "a" / "T1" / "0.nii.gz").dataobj)
    assert np.array_equal(MedicalFolderDataset(root)[0][0][0]["T1"].numpy(), stored.astype(np.float32))


# --- transforms


def test_transforms_are_one_callable_or_one_per_modality(root):
    write_nifti(root / "anna" / "T2" / "a.nii", shape=(2, 2, 2))
    one = MedicalFolderDataset(root, transform=lambda image: image.unsqueeze(0), target_transform={"label": lambda image: image > 0})
    (data, _), targets = one[0]
    assert data["T1"].shape == (1, 4, 5, 3)
    assert targets["label"].dtype == torch.bool
    several = MedicalFolderDataset(root, ["T1", "T2"], transform={"T2": lambda image: 0 * image.numpy()})
    (data, _), _ = several[0]
    assert data["T2"].tolist() == torch.zeros(2, 2, 2).tolist()
    assert data["T1"].abs().sum() > 0
    assert several.get_nontransformed_item(0)[0][0]["T2"].abs().sum() > 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"transform": 3}, "transform must be a callable or a dict"),
        (
            {"data_modalities": ["T1", "T2"], "transform": torch.abs},
            "must be a dict of callables by modality",
        ),
        ({"transform": {"T2": torch.abs}}, "callables for some of T1"),
        ({"transform": {"T1": "abs"}}, "callables for some of T1"),
        ({"target_transform": 3}, "target_transform must be"),
        ({"demographics_transform": "x"}, "demographics_transform must be a callable"),
        ({"data_modalities": []}, "data_modalities must be"),
        ({"target_modalities": [3]}, "target_modalities must be"),
        ({"tabular_file": "subjects.csv"}, "needs both tabular_file"),
        ({"index_col": "id"}, "needs both tabular_file"),
        ({"tabular_file": "subjects.csv", "index_col": True}, "needs both tabular_file"),
    ],
)
def test_wrong_arguments_are_a_clear_error(root, arguments, reason):
    with pytest.raises(FedbiomedDatasetValueError, match=reason):
        MedicalFolderDataset(root, **arguments)


def test_transforms_must_give_tensors(root):
    with pytest.raises(FedbiomedDatasetValueError, match="transform of 'T1' must give a tensor, not a list"):
        MedicalFolderDataset(root, transform=lambda image: image.tolist())[0]
    with pytest.raises(FedbiomedDatasetValueError, match="demographics_transform must give a tensor, not a dict"):
        MedicalFolderDataset(root, demographics_transform=lambda row: row)[0]


# --- what the node hands in


def test_parameters_and_plan_may_come_later(tmp_path, table):
    root = write_subjects(tmp_path / "study", ["007"], ("t1_mprage", "seg"))
    write_subjects(root, ["12"], ("t1_flash", "seg"))
    dataset = MedicalFolderDataset(root)
    with pytest.raises(FedbiomedDatasetError, match=r"of 2 subjects with images.* T1: 0, label: 0; complete the folders, or map"):
        len(dataset)
    dataset.set_dlp(folder_plan(T1=["t1_mprage", "t1_flash"], label=["seg"]))
    assert len(dataset) == 2
    assert list(dataset[1][0][0]) == ["T1"]
    dataset.set_dataset_parameters({"tabular_file": str(table), "index_col": 0})
    assert dataset[0][0][1].tolist() == [63.5, 0.0]
    assert (dataset.tabular_file, dataset.index_col) == (table, 0)
    dataset.clear_dlp()
    with pytest.raises(FedbiomedDatasetError, match="no subject can be used"):
        len(dataset)


@pytest.mark.parametrize("folders", ["T1", [], ["../other"], [3], None])
def test_a_plan_that_maps_to_no_folder_names_is_not_attached(root, folders):
    dataset = MedicalFolderDataset(root)
    with pytest.raises(FedbiomedDataLoadingPlanValueError, match="modality 'T1' must be mapped to a list of folder names"):
        dataset.set_dlp(folder_plan(T1=folders, label=["label"]))
    assert len(dataset) == len(MedicalFolderDataset(root))


def test_a_modality_that_the_plan_does_not_map_is_a_clear_error(root):
    dataset = MedicalFolderDataset(root)
    dataset.set_dlp(folder_plan(T1=["T1"]))
    with pytest.raises(FedbiomedLoadingBlockError, match="does not map 'label'; it maps T1"):
        len(dataset)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"colour": 1}, "takes the parameters tabular_file and index_col"),
        ([], "takes the parameters"),
        ({"tabular_file": "x.csv"}, "needs both"),
        ({"tabular_file": "/nowhere/x.csv", "index_col": 0}, "/nowhere/x.csv is not there"),
        ({"tabular_file": "/nowhere/x.xls", "index_col": 0}, "does not end in .csv or .tsv"),
    ],
)
def test_wrong_parameters_change_nothing(root, table, parameters, reason):
    dataset = MedicalFolderDataset(root, tabular_file=table, index_col=0)
    if parameters == {"tabular_file": "x.csv"}:
        dataset = MedicalFolderDataset(root)
    before = (dataset.tabular_file, dataset.index_col)
    with pytest.raises(FedbiomedDatasetError, match=reason):
        dataset.set_dataset_parameters(parameters)
    assert (dataset.tabular_file, dataset.index_col) == before
    assert len(dataset) == 3


@pytest.mark.parametrize("index_col", ["id", 4, 99])
def test_a_table_without_the_index_column_is_a_clear_error(root, table, index_col):
    with pytest.raises(FedbiomedDatasetValueError, match=rf"has no column {index_col!r}; it has 4: folder, age, sex, smoker"):
        len(MedicalFolderDataset(root, tabular_file=table, index_col=index_col))


def test_properties_may_be_set_one_by_one(root, table):
    dataset = MedicalFolderDataset(root)
    dataset.tabular_file = table
    with pytest.raises(FedbiomedDatasetValueError, match="needs both"):
        len(dataset)
    dataset.index_col = "folder"
    assert dataset.demographics.loc["007", "age"] == 63.5
    for name, value in (("tabular_file", 3), ("index_col", -1), ("index_col", None)):
        with pytest.raises(FedbiomedDatasetValueError, match=name):
            setattr(dataset, name, value)


# --- wrong folders


def test_no_subject_of_the_table_in_the_folder(root, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,age\nzoe,3\n")
    with pytest.raises(FedbiomedDatasetError, match="0 of 3 complete ones stand in the table of 1"):
        len(MedicalFolderDataset(root, tabular_file=path, index_col="id"))


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for path, reason in (("nowhere", "is not there"), ("file", "is a file"), ("empty", "holds no folder")):
        with pytest.raises(FedbiomedDatasetError, match=reason):
            MedicalFolderDataset(tmp_path / path)
    with pytest.raises(FedbiomedDatasetError, match="a path, not a int"):
        MedicalFolderDataset(3)


def test_an_unreadable_image_is_told_without_its_path(root):
    (root / "12" / "T1" / "0.nii.gz").write_bytes(b"no image")
    dataset = MedicalFolderDataset(root)
    dataset[0]
    with pytest.raises(FedbiomedDatasetError, match="an image of sample 1 cannot be read") as caught:
        dataset[1]
    assert "12" not in str(caught.value)
    assert str(root) not in str(caught.value)
    assert str(root / "12" / "T1" / "0.nii.gz") in str(caught.value.__cause__)


def test_a_cut_image_is_told(root):
    path = root / "007" / "T1" / "007_T1.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(FedbiomedDatasetError, match="an image of sample 0"):
        MedicalFolderDataset(root)[0]


# --- loaders


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_makes_batches_of_it(root, table, workers):
    dataset = MedicalFolderDataset(root, tabular_file=table, index_col=0)
    ((data, demographics), targets) = next(iter(DataLoader(dataset, batch_size=3, num_workers=workers)))
    assert data["T1"].shape == targets["label"].shape == (3, 4, 5, 3)
    assert demographics.shape == (3, 2)


def test_a_data_manager_splits_it(root):
    manager = DataManager(MedicalFolderDataset(root), batch_size=1)
    assert [folder.name for folder in manager._dataset.subject_folders()] == SUBJECTS
    manager.load(tp_type=TrainingPlans.TorchTrainingPlan)
    train, test = manager.split(0.4, seed=1)
    assert (len(train.dataset), len(test.dataset)) == (2, 1)


# --- base and controller


def test_the_controller_looks_a_folder_over(root):
    write_nifti(root / "anna" / "T2" / "a.nii")
    (root / "late").mkdir()
    controller = MedicalFolderController(root)
    names, everything = controller.modalities()
    assert names == ["T1", "T2", "label"]
    assert sorted(everything) == ["T1"] * 3 + ["T2"] + ["label"] * 3
    assert controller.subject_modality_status() == {
        "columns": ["T1", "T2", "label"],
        "index": ["007", "12", "anna"],
        "data": [[True, False, True], [True, False, True], [True, True, True]],
    }
    assert controller.subject_modality_status(index=pd.Series(["007", "zoe"])) == {
        "columns": ["T1", "T2", "label", "in_folder", "in_index"],
        "index": ["007", "12", "anna", "zoe"],
        "data": [
            [True, False, True, True, True],
            [True, False, True, True, False],
            [True, True, True, True, False],
            [False, False, False, False, True],
        ],
    }
    assert controller.available_subjects(["007", "zoe"]) == (["007"], ["zoe"], ["12", "anna"])
    assert controller.subjects_with_imaging_data_folders() == SUBJECTS
    assert controller.complete_subjects(SUBJECTS, ["T1", "T2"]) == ["anna"]
    with pytest.raises(FedbiomedDatasetError, match="holds no subject 'zoe'"):
        controller.is_modalities_existing("zoe", ["T1"])


def test_the_controller_loads_the_folder(root, table):
    dataset = MedicalFolderController(root).load_MedicalFolder(tabular_file=table, index_col="folder")
    assert isinstance(dataset, MedicalFolderDataset)
    assert dataset.shape() == {"T1": [4, 5, 3], "label": [4, 5, 3], "demographics": [3, 3], "num_modalities": 2}
    write_nifti(root / "anna" / "odd" / "a.nii")
    write_nifti(root / "12" / "other" / "a.nii")
    with pytest.raises(FedbiomedDatasetError, match="T1: 3, label: 3, odd: 1, other: 1"):
        MedicalFolderController(root).load_MedicalFolder()
    controller = MedicalFolderController(root)
    controller.set_dlp(folder_plan(T1=["T1"], label=["label"]))
    assert controller.modalities() == (["T1", "label"], ["T1", "label"] * 3)
    assert len(controller.load_MedicalFolder()) == 3


def test_the_base_reads_tables_and_wants_a_root(table):
    frame = MedicalFolderBase.read_demographics(table, "folder")
    assert list(frame.index) == ["anna", "007", "12"]
    assert MedicalFolderBase.demographics_column_names(table) == ["folder", "age", "sex", "smoker"]
    with pytest.raises(FedbiomedDatasetError, match="give `root`"):
        MedicalFolderBase().modalities()


def test_the_type_describes_a_folder(root, table):
    kind = load_type("medical-folder")
    assert kind.describe(root, {}).shape == {"T1": [4, 5, 3], "label": [4, 5, 3], "demographics": None, "num_modalities": 2}
    assert kind.describe(root, {"tabular_file": str(table), "index_col": "folder"}).shape["demographics"] == [3, 3]
    plan = folder_plan(scan=["T2", "T1"])
    assert kind.describe(root, {}, plan).shape == {"scan": [4, 5, 3], "demographics": None, "num_modalities": 1}
    (root / "007" / "T1" / "007_T1.nii.gz").write_bytes(b"no image")
    with pytest.raises(FedbiomedDatasetError, match=r"cannot read .*007_T1.nii.gz as NIfTI"):
        kind.describe(root, {})
