"""Rounds on datasets of several types: the node hands table and loading plan to the dataset, and tells nobody where they lie."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from fedbiomed.common.data import DataManager, MedicalFolderDataset, MnistDataset
from fedbiomed.common.data.loading_plan import plan_from_json
from fedbiomed.common.exceptions import FedbiomedDatasetError, FedbiomedError
from fedbiomed.common.serializer import Serializer
from fedbiomed.common.training_plans.torch_plan import TorchTrainingPlan
from fedbiomed.node.datasets import DatasetRegistry
from fedbiomed.node.round import PlanCache, Round
from fedbiomed.node.store import NodeStore
from fedbiomed.researcher.experiment import Experiment
from tests.support.medical import write_digits, write_subjects
from tests.support.memory_federation import memory_federation
from tests.support.tasks import round_task

ARGS = {"num_updates": 2, "loader_args": {"batch_size": 2}, "random_seed": 3, "test_ratio": 0.25, "test_on_local_updates": True}
SHORT_PLAN = {"name": "our scanners", "modalities_to_folders": {"T1": ["t1_mprage", "t1_flash"], "label": ["seg"]}}


class ScanPlan(TorchTrainingPlan):
    """A convolution that draws a mask, moved by the subject's age."""

    def init_dependencies(self):
        return ["from fedbiomed.common.data import MedicalFolderDataset"]

    def init_model(self, model_args):
        return nn.Conv3d(1, 1, 3, padding=1)

    def init_optimizer(self, optimizer_args):
        return torch.optim.SGD(self.model().parameters(), lr=0.1)

    def training_data(self):
        dataset = MedicalFolderDataset(
            root=self.dataset_path,
            data_modalities="T1",
            target_modalities="label",
            transform=lambda image: image.unsqueeze(0),
            target_transform=lambda image: (image.unsqueeze(0) > 0).float(),
            demographics_transform=lambda row: torch.tensor([row["age"] / 100]),
        )
        return DataManager(dataset, shuffle=True)

    def training_step(self, data, target):
        images, ages = data
        scores = self.model()(images["T1"]) + ages[:, :, None, None, None]
        return nn.functional.binary_cross_entropy_with_logits(scores, target["label"])

    def testing_step(self, data, target):
        return (2.0 ** (100 * data[1] - 20).round()).sum()  # one power of 2 per subject: tells which ones were tested on


@pytest.fixture(scope="module")
def federation(tmp_path_factory, shared_worker):
    with memory_federation(tmp_path_factory.mktemp("federation"), 1, shared_worker) as federation:
        yield federation


@pytest.fixture
def study(tmp_path):
    """Ten subjects, of whom eight can be used, the table of nine of them."""
    root = write_subjects(tmp_path / "study", [f"{i:03}" for i in range(5)], ("t1_mprage", "seg"))
    write_subjects(root, [f"{i:03}" for i in range(5, 9)], ("t1_flash", "seg"))
    write_subjects(root, ["009"], ("t1_flash",))
    (tmp_path / "subjects.tsv").write_text("id\tage\n" + "".join(f"{i:03}\t{20 + i}\n" for i in range(1, 10)))
    return root


def parameters(study):
    return {"tabular_file": str(study.parent / "subjects.tsv"), "index_col": "id"}


def test_a_federation_trains_on_scans(federation, tmp_path, study):
    with NodeStore(federation.root / "node_0" / "var" / "node.sqlite") as store:
        row = DatasetRegistry(store).add(
            name="scans",
            data_type="medical-folder",
            tags=["mri"],
            path=study,
            dataset_parameters=parameters(study),
            loading_plan=plan_from_json(SHORT_PLAN),
        )
    with federation.researcher(tmp_path / "researcher") as requests:
        (found,) = requests.search(["mri"])["node_0"]
        assert (found["dlp_id"], found["shape"]["T1"]) == (row["dlp_id"], [4, 5, 3])
        assert found["dataset_parameters"] == {"index_col": "id"}
        assert str(tmp_path) not in json.dumps(found)
        (listed,) = [entry for entry in requests.list(verbose=True)["node_0"] if entry["tags"] == ["mri"]]
        assert "dtypes" not in listed
        experiment = Experiment(tags=["mri"], training_plan_class=ScanPlan, training_args=ARGS, requests=requests, show_progress=False)
        before = {name: value.clone() for name, value in experiment.training_plan().get_model_params().items()}
        assert experiment.run_once() == 1
        (reply,) = experiment.training_replies()[0].data()
        # Nine subjects have both modalities, eight of them (001 to 008) stand in the table: 2 are for tests, 6 are trained on.
        assert (reply["success"], reply["sample_size"]) == (True, 6)
        after = experiment.aggregated_params()[0]["params"]
        assert all(not np.allclose(before[name], after[name]) for name in before)


def scan_task(tmp_path, study, **changes):
    """A task on the study."""
    task = {
        "plan_class": "ScanPlan",
        "training_args": ARGS,
        "dataset_path": str(study),
        "dataset_parameters": parameters(study),
        "loading_plan": plan_from_json(SHORT_PLAN).serialize(),
    }
    made = round_task(tmp_path, **{**task, **changes})
    weights = {"weight": np.zeros((1, 1, 3, 3, 3), dtype=np.float32), "bias": np.zeros(1, dtype=np.float32)}
    Serializer.dump({"researcher_id": "researcher_1", "model_weights": weights}, made.params)
    return made


@pytest.fixture(scope="module")
def source():
    plan = ScanPlan()
    plan.configure_dependencies()
    return plan.source_text().encode()


def test_the_split_is_the_same_in_every_round_of_a_job(tmp_path, study, source):
    plans = PlanCache(source)
    args = {key: value for key, value in ARGS.items() if key != "random_seed"}
    tested = []
    for job, round_ in (("job_1", 0), ("job_1", 1), ("job_1", 2), ("job_2", 0), ("job_3", 0), ("job_4", 0)):
        task = scan_task(tmp_path, study, round=round_, job_id=job, training_args=args)
        result = Round(task, plans, lambda _report: None).run()
        tested += [point["value"] for point in result.metrics if point["phase"] == "VALIDATION ON LOCAL UPDATES"]
    assert bin(int(tested[0])).count("1") == 2
    assert tested[0] == tested[1] == tested[2]
    assert len(set(tested)) > 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"loading_plan": None}, "no subject can be used: .* T1: 0, label: 0"),
        ({"dataset_parameters": {"colour": 1}}, "takes the parameters tabular_file and index_col"),
        ({"dataset_path": "/nowhere"}, "/nowhere is not there"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path, study, source, changes, reason):
    with pytest.raises(FedbiomedDatasetError, match=reason):
        Round(scan_task(tmp_path, study, **changes), PlanCache(source), lambda _report: None).run()


def test_places_are_hidden_from_the_researcher(tmp_path, study):
    task = scan_task(tmp_path, study)
    text = f"cannot read {study}/001/seg/x.nii.gz, {study.parent}/subjects.tsv and {study.parent}/other"
    assert task.without_places(text) == "cannot read <dataset>/001/seg/x.nii.gz, <dataset> and <dataset>/other"
    assert round_task(tmp_path, dataset_path=None).without_places("a/b") == "a/b"
    assert round_task(tmp_path, dataset_path="/").without_places("a/b") == "a/b"


class Forgetful(TorchTrainingPlan):
    """Looks for its data in the wrong file."""

    def init_model(self, model_args):
        return nn.Linear(1, 1)

    def training_data(self):
        with open(self.dataset_path + ".gone") as file:  # noqa: PTH123  what plans do
            return DataManager(file.read())

    def training_step(self, data, target):
        return None


def test_a_failing_plan_does_not_tell_the_path(federation, tmp_path):
    with federation.researcher(tmp_path / "researcher") as requests:
        experiment = Experiment(tags=["line"], training_plan_class=Forgetful, training_args=ARGS, requests=requests, show_progress=False)
        with pytest.raises(FedbiomedError, match=r"FileNotFoundError.*<dataset>\.gone") as caught:
            experiment.run_once()
        assert str(federation.data(0)) not in str(caught.value)


class MnistPlan(TorchTrainingPlan):
    """A linear classifier of digits."""

    def init_dependencies(self):
        return ["from fedbiomed.common.data import MnistDataset"]

    def init_model(self, model_args):
        return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))

    def init_optimizer(self, optimizer_args):
        return torch.optim.SGD(self.model().parameters(), lr=0.1)

    def training_data(self):
        dataset = MnistDataset(self.dataset_path, transform=lambda image: (image - 0.1307) / 0.3081)
        return DataManager(dataset, shuffle=True)

    def training_step(self, data, target):
        return nn.functional.cross_entropy(self.model()(data), target)


def test_digits_are_learned_without_torchvision(tmp_path):
    write_digits(tmp_path / "digits", ".gz")
    plan = MnistPlan()
    plan.configure_dependencies()
    args = {"epochs": 12, "loader_args": {"batch_size": 10}, "random_seed": 1, "log_interval": 1}
    task = round_task(tmp_path, plan_class="MnistPlan", training_args=args, dataset_path=str(tmp_path / "digits"))
    weights = {"1.weight": np.zeros((10, 784), "float32"), "1.bias": np.zeros(10, "float32")}
    Serializer.dump({"researcher_id": "researcher_1", "model_weights": weights}, task.params)
    result = Round(task, PlanCache(plan.source_text().encode()), lambda _report: None).run()
    losses = [point["value"] for point in result.metrics]
    assert losses[0] == pytest.approx(np.log(10), rel=1e-5)  # weights of 0: ten digits, each as likely
    assert losses[-1] < 0.2
    assert result.sample_size == 60
