"""The plans that come with the release: what they are called, that they load and train, and how a node takes them."""

import gzip
import importlib.util
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import fedbiomed.common.data
from fedbiomed.common.exceptions import FedbiomedTrainingPlanSecurityManagerError
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.source import load_plan_from_file
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.node.approval import PlanRegistry
from fedbiomed.node.default_plans import shipped_plans, take_shipped_plans
from fedbiomed.node.plan_source import class_name, plan_hash
from fedbiomed.node.round import PlanCache, Round
from fedbiomed.node.store import NodeStore
from tests.support.tasks import round_task

NAMES = [
    "pytorch-celeba.txt",
    "pytorch-csv.txt",
    "pytorch-medical-folder-dataset-custom.txt",
    "pytorch-medical-folder-unet.txt",
    "pytorch-mnist.txt",
    "pytorch-usedcars.txt",
    "sklearn-perceptron.txt",
    "sklearn-sgdregressor.txt",
    "variational-autoencoder.txt",
]
SOURCES = dict(shipped_plans())


def digits(folder: Path) -> Path:
    """Images of 12 random digits, packed as MNIST's files are."""
    pixels = np.random.default_rng(1).integers(0, 256, (12, 28, 28), dtype=np.uint8)
    images = struct.pack(">4I", 2051, 12, 28, 28) + pixels.tobytes()
    (folder / "MNIST" / "raw").mkdir(parents=True)
    (folder / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    (folder / "MNIST" / "raw" / "train-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, 12) + bytes(n % 10 for n in range(12)))
    return folder


def table(folder: Path) -> Path:
    numbers = np.random.default_rng(2).normal(size=(20, 2))
    classes = (numbers.sum(axis=1) > 0).astype(int)
    pd.DataFrame({"x": numbers[:, 0], "y": numbers[:, 1], "class": classes}).to_csv(folder / "rows.csv", index=False)
    return folder / "rows.csv"


def cars(folder: Path) -> Path:
    rows = [
        "model,year,transmission,mileage,fuelType,mpg,engineSize,price",
        " A1,2017,Manual,15735,Petrol,55.4,1.4,12500",
        " A6,2016,Automatic,36203,Diesel,64.2,2.0,16500",
        " GLC,2019,Semi-Auto,1200,Hybrid,40.1,3.0,45000",
        " Fiesta,2013,Manual,61000,Petrol,52.3,1.0,6200",
    ]
    (folder / "cars.csv").write_text("\n".join(rows) + "\n")
    return folder / "cars.csv"


def patients(folder: Path) -> Path:
    generator = np.random.default_rng(3)
    names = [
        "AGE",
        *(f"{name}.bl" for name in ("WholeBrain", "Ventricles", "Hippocampus", "MidTemp", "Entorhinal", "ADAS11", "CDRSB", "MMSE")),
    ]
    centres = [72, 0.68, 0.025, 0.0046, 0.013, 0.0023, 10, 1.2, 27]
    pd.DataFrame(np.array(centres) * generator.uniform(0.9, 1.1, (20, 9)), columns=names).to_csv(folder / "p.csv", sep=";", index=False)
    return folder / "p.csv"


def faces(folder: Path) -> Path:
    (folder / "img_align_celeba").mkdir()
    pixels = np.random.default_rng(4).integers(0, 256, (6, 40, 32, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / "img_align_celeba" / f"{number}.jpg")
    rows = "".join(f"{number}.jpg,{1 if number % 2 else -1}\n" for number in range(7))  # the last one's image is not there
    (folder / "list_attr_celeba.csv").write_text("image_id,Smiling\n" + rows)
    return folder


TRAINED: dict[str, tuple[Callable[[Path], Path], dict[str, Any], int]] = {
    "pytorch-mnist.txt": (digits, {}, 12),
    "variational-autoencoder.txt": (digits, {"latent": 3}, 12),
    "pytorch-csv.txt": (table, {"columns": ["x", "y"], "target": "class"}, 20),
    "pytorch-usedcars.txt": (cars, {"hidden": 4}, 4),
    "pytorch-celeba.txt": (faces, {}, 6),
    "sklearn-perceptron.txt": (table, {"n_features": 2, "n_classes": 2}, 20),
    "sklearn-sgdregressor.txt": (patients, {"n_features": 8, "eta0": 0.001}, 20),
}


def loaded(name: str, folder: Path) -> Any:
    """The plan, where what it needs is installed; from a file, so that its text is found as that of a researcher's class."""
    if "medical" in name and not hasattr(fedbiomed.common.data, "MedicalFolderDataset"):
        pytest.skip("this installation has no medical folders")
    if "unet" in name and importlib.util.find_spec("monai") is None:
        pytest.skip("monai is not installed")
    path = folder / f"{Path(name).stem}.py"
    path.write_bytes(SOURCES[name])
    return load_plan_from_file(path, class_name(SOURCES[name]))()


def test_the_plans_have_the_names_that_users_know() -> None:
    assert list(SOURCES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_is_the_text_that_a_researcher_sends_for_it(name: str, tmp_path: Path) -> None:
    plan = loaded(name, tmp_path)
    plan.configure_dependencies()
    assert plan_hash(plan.source_text().encode()) == plan_hash(SOURCES[name])


def test_the_files_begin_with_the_imports_that_every_torch_plan_has() -> None:
    folder = Path(fedbiomed.__path__[0], "node", "default_training_plans")
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    for name in NAMES:
        text = (folder / name).read_text(encoding="utf-8")
        if not name.startswith("sklearn"):
            imports = TorchTrainingPlan.builtin_dependencies(None)  # type: ignore[arg-type]  # a constant list
            assert text.splitlines()[: len(imports)] == imports
        assert class_name(text.encode()).endswith("Plan")


@pytest.mark.parametrize("name", TRAINED)
def test_a_plan_trains_a_round(name: str, tmp_path: Path) -> None:
    prepare, model_args, samples = TRAINED[name]
    (tmp_path / "data").mkdir()
    data, args = prepare(tmp_path / "data"), {"epochs": 2, "loader_args": {"batch_size": 4}, "random_seed": 5}
    plan = loaded(name, tmp_path)
    plan.post_init(model_args, TrainingArgs(args))
    before = plan.get_model_params()
    task = round_task(tmp_path, plan_class=type(plan).__name__, dataset_path=str(data), model_args=model_args, training_args=args)
    Serializer.dump({"researcher_id": "researcher_1", "model_weights": before}, task.params)
    result = Round(task, PlanCache(SOURCES[name]), lambda _report: None).run()
    after = Serializer.load(task.result)["model_weights"]
    assert result.sample_size == samples
    assert after.keys() == before.keys()
    assert any(not np.array_equal(np.asarray(after[key]), np.asarray(before[key])) for key in before)
    assert all(np.isfinite(np.asarray(value)).all() for value in after.values())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[NodeStore]:
    with NodeStore(tmp_path / "node.sqlite") as opened:
        yield opened


@pytest.fixture
def plans(store: NodeStore) -> PlanRegistry:
    registry = PlanRegistry(store, approval_required=True)
    take_shipped_plans(registry, are_allowed=True)
    return registry


def row(plans: PlanRegistry, name: str) -> dict[str, Any]:
    return next(row for row in plans.all() if row["name"] == name)


def test_a_node_approves_them_all(plans: PlanRegistry) -> None:
    assert [(row["name"], row["training_plan_type"], row["training_plan_status"]) for row in plans.all()] == [
        (name, "default", "Approved") for name in NAMES
    ]
    for source in SOURCES.values():
        assert plans.require_approved(source + b"# the same\n") == source
    take_shipped_plans(plans, are_allowed=True)
    assert len(plans.all()) == len(NAMES)


def test_they_can_be_rejected_and_nothing_else(plans: PlanRegistry, tmp_path: Path) -> None:
    name = "pytorch-mnist.txt"
    plan_id = row(plans, name)["training_plan_id"]
    (tmp_path / "plan.py").write_text("class A: pass\n")
    with pytest.raises(FedbiomedTrainingPlanSecurityManagerError, match=r"pytorch-mnist.txt came with the release and cannot be updated"):
        plans.update(plan_id, tmp_path / "plan.py")
    with pytest.raises(FedbiomedTrainingPlanSecurityManagerError, match="cannot be deleted; reject it"):
        plans.delete(plan_id)
    plans.reject(plan_id, "no digits here")
    for are_allowed in (True, False):  # the operator's decision outlives starts of the node
        take_shipped_plans(plans, are_allowed=are_allowed)
        assert plans.check(SOURCES[name]).status == "Rejected"
    assert [row["name"] for row in plans.all()] == [name]


def test_a_new_release_brings_new_texts(store: NodeStore, plans: PlanRegistry) -> None:
    name = "sklearn-perceptron.txt"
    assert plans.ship(name, SOURCES[name] + b"x = 1\n") == "updated"
    assert plans.check(SOURCES[name]).status == "Not Registered"
    assert plans.check(SOURCES[name] + b"x = 1\n").status == "Approved"
    plans.reject(row(plans, name)["training_plan_id"], "no")
    take_shipped_plans(plans, are_allowed=True)
    assert plans.check(SOURCES[name]).status == "Rejected"


def test_not_allowed_they_are_plans_like_others(plans: PlanRegistry) -> None:
    take_shipped_plans(plans, are_allowed=False)
    assert plans.all() == []
    source = SOURCES["pytorch-csv.txt"]
    wanted = plans.request(source, "please", "researcher_x")
    take_shipped_plans(plans, are_allowed=True)  # what a researcher asked for is decided by the operator
    assert plans.check(source).status == "Pending"
    assert plans.get(wanted["training_plan_id"])["training_plan_type"] == "requested"
    assert len(plans.all()) == len(NAMES)
