"""Pictures, NIfTI images and digits in files, as torch datasets and as types that an operator registers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedbiomed.common.constants import TrainingPlans
from fedbiomed.common.data import DataManager, ImageFolderDataset, MnistDataset, NIFTIFolderDataset
from fedbiomed.common.data.datasets.dataset_type import load_type
from fedbiomed.common.exceptions import FedbiomedDatasetError, FedbiomedDatasetValueError
from tests.support.medical import write_digits, write_nifti, write_picture

REAL_MNIST = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "mnist"


# --- NIfTI images by class


@pytest.fixture
def scans(tmp_path):
    root = tmp_path / "scans"
    for number, name in enumerate(("healthy/b.nii", "healthy/a.nii.gz", "ill/c.nii")):
        write_nifti(root / name, seed=number)
    (root / "notes").mkdir()
    (root / "ill" / "notes.txt").touch()
    return root


def test_nifti_folders(scans):
    dataset = NIFTIFolderDataset(scans)
    assert (dataset.labels(), len(dataset)) == (["healthy", "ill"], 3)
    assert dataset.files() == [scans / "healthy" / "a.nii.gz", scans / "healthy" / "b.nii", scans / "ill" / "c.nii"]
    image, target = dataset[2]
    assert (image.dtype, target) == (torch.float32, 1)
    assert np.array_equal(image.numpy(), np.random.default_rng(2).normal(size=(4, 5, 3)).astype(np.float32))
    changed = NIFTIFolderDataset(scans, transform=lambda x: x.unsqueeze(0), target_transform=lambda y: y + 10)[0]
    assert (changed[0].shape, changed[1]) == ((1, 4, 5, 3), 10)


def test_wrong_nifti_folders(scans, tmp_path):
    (tmp_path / "empty").mkdir()
    for path, reason in ((tmp_path / "nowhere", "is not there"), (tmp_path / "empty", "no folder with a file that ends in .nii")):
        with pytest.raises(FedbiomedDatasetError, match=reason):
            NIFTIFolderDataset(path)
    for arguments, reason in (((3,), "root is a path"), ((scans, 3), "transform must be"), ((scans, None, 3), "target_transform")):
        with pytest.raises(FedbiomedDatasetValueError, match=reason):
            NIFTIFolderDataset(*arguments)
    (scans / "ill" / "c.nii").write_bytes(b"x")
    with pytest.raises(FedbiomedDatasetError, match="the image of sample 2 cannot be read") as caught:
        NIFTIFolderDataset(scans)[2]
    assert str(scans) not in str(caught.value)


# --- pictures by class


@pytest.fixture
def pictures(tmp_path):
    root = tmp_path / "MedNIST"
    for number, name in enumerate(("CXR/1.png", "CXR/0.JPEG", "Hand/2.jpg")):
        write_picture(root / name, seed=number)
    (root / "README.md").touch()
    return root


def test_picture_folders(pictures):
    dataset = ImageFolderDataset(pictures)
    assert (dataset.classes, dataset.class_to_idx, dataset.targets) == (["CXR", "Hand"], {"CXR": 0, "Hand": 1}, [0, 0, 1])
    pixels = write_picture(pictures / "CXR" / "1.png", seed=7)
    image, target = dataset[1]
    assert (image.shape, image.dtype, target) == ((3, 4, 6), torch.float32, 0)
    assert torch.equal(image, torch.tensor(pixels).permute(2, 0, 1) / 255)
    changed = ImageFolderDataset(pictures, transform=lambda x: x[0], target_transform=lambda y: -y)[2]
    assert (changed[0].shape, changed[1]) == ((4, 6), -1)


def test_pictures_are_brought_to_one_mode(tmp_path):
    grey = write_picture(tmp_path / "a" / "x.png", mode="L")
    assert torch.equal(ImageFolderDataset(tmp_path, mode="L")[0][0], torch.tensor(grey)[None] / 255)
    assert torch.equal(ImageFolderDataset(tmp_path)[0][0], torch.tensor(grey).expand(3, -1, -1) / 255)
    with pytest.raises(FedbiomedDatasetValueError, match="mode must be RGB or L"):
        ImageFolderDataset(tmp_path, mode="CMYK")


def test_pictures_are_described(pictures):
    assert load_type("images").describe(pictures, {}).shape == (3, 3, 4, 6)
    (pictures / "CXR" / "1.png").unlink()
    for path in (pictures, pictures.parent):
        found = load_type("mednist").describe(path, {})
        assert (found.shape, found.path) == ((2, 3, 4, 6), pictures)


@pytest.mark.parametrize("kind", ["images", "mednist"])
def test_wrong_picture_folders(kind, pictures, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for path, reason in (("empty", "no folder with a file"), ("file", "is a file")):
        with pytest.raises(FedbiomedDatasetError, match=reason):
            load_type(kind).describe(tmp_path / path, {})
    (pictures / "Hand" / "2.jpg").write_bytes(b"no picture")
    with pytest.raises(FedbiomedDatasetError, match=r"cannot read .*2.jpg as a picture"):
        load_type(kind).describe(pictures, {})
    with pytest.raises(FedbiomedDatasetError, match="the picture of sample 2 cannot be read"):
        ImageFolderDataset(pictures)[2]


def test_mednist_says_where_to_put_it(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FedbiomedDatasetError, match=rf"nothing is downloaded here; unpack MedNIST .* lie in {tmp_path}/empty/MedNIST$"):
        load_type("mednist").describe(tmp_path / "empty", {})


@pytest.mark.parametrize("cut", [10, 60, 120])
def test_cut_pictures_are_told(tmp_path, cut):
    for name in ("a/x.png", "b/y.jpg"):
        write_picture(tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:cut])
        with pytest.raises(FedbiomedDatasetError, match="cannot be read"):
            ImageFolderDataset(tmp_path)[-1]


# --- digits


@pytest.mark.parametrize(("below", "ending"), [(".", ""), ("raw", ".gz"), ("MNIST/raw", ".gz")])
def test_digits(tmp_path, below, ending):
    images, labels = write_digits(tmp_path / below, ending)
    dataset = MnistDataset(tmp_path)
    assert (len(dataset), len(MnistDataset(tmp_path, train=False))) == (60, 30)
    assert np.array_equal(dataset.data.numpy(), images)
    assert dataset.targets.tolist() == labels.tolist()
    image, digit = dataset[5]
    assert (image.shape, image.dtype, digit) == ((1, 28, 28), torch.float32, int(labels[5]))
    assert torch.equal(image[0], torch.tensor(images[5]) / 255)
    changed = MnistDataset(tmp_path, transform=lambda x: (x - 0.1307) / 0.3081, target_transform=str)[5]
    assert torch.allclose(changed[0], (image - 0.1307) / 0.3081)
    assert changed[1] == str(labels[5])
    assert load_type("default").describe(tmp_path, {}).shape == (60, 1, 28, 28)


@pytest.mark.parametrize("kind", [TrainingPlans.TorchTrainingPlan, TrainingPlans.SkLearnTrainingPlan])
def test_digits_go_into_both_kinds_of_plans(tmp_path, kind):
    write_digits(tmp_path)
    dataset = MnistDataset(tmp_path)
    if kind is TrainingPlans.TorchTrainingPlan:
        manager = DataManager(dataset, batch_size=8, shuffle=True)
    else:
        manager = DataManager(dataset.data.numpy().reshape(-1, 28 * 28), dataset.targets.numpy(), batch_size=8)
    manager.load(tp_type=kind)
    train, test = manager.split(0.25, seed=1)
    assert (len(train), len(test)) == (6, 1)
    data, target = next(iter(train))
    assert (len(data), len(target)) == (8, 8)


def test_wrong_digits(tmp_path):
    with pytest.raises(FedbiomedDatasetError, match="is not there; MNIST is a folder of its four IDX files"):
        MnistDataset(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FedbiomedDatasetError, match="has no train-images-idx3-ubyte"):
        MnistDataset(tmp_path / "empty")
    write_digits(tmp_path / "cut")
    path = tmp_path / "cut" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FedbiomedDatasetError, match=r"is cut or too long: its header says \(60, 28, 28\)"):
        MnistDataset(tmp_path / "cut")
    path.write_bytes((tmp_path / "cut" / "t10k-images-idx3-ubyte").read_bytes())
    with pytest.raises(FedbiomedDatasetError, match="has 30 images, train-labels-idx1-ubyte 60 labels"):
        MnistDataset(tmp_path / "cut")


@pytest.mark.skipif(not REAL_MNIST.is_dir(), reason=f"the original files are not in {REAL_MNIST}")
def test_the_original_digits():
    assert load_type("default").describe(REAL_MNIST, {}).shape == (60_000, 1, 28, 28)
    dataset = MnistDataset(REAL_MNIST, train=False)
    assert (len(dataset), dataset.targets[:5].tolist()) == (10_000, [7, 2, 1, 0, 4])
    # The mean grey level of the 10000 images, as published for this set: 0.1325.
    assert dataset.data.float().mean().item() / 255 == pytest.approx(0.1325, abs=1e-4)
