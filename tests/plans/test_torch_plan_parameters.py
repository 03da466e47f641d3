"""What a torch plan sends, takes over, writes to files and reports of a validation."""

import pytest
import torch
from torch import nn

from fedbiomed.common.data import DataManager
from fedbiomed.common.exceptions import FedbiomedModelError, FedbiomedTrainingPlanError
from fedbiomed.common.metrics import MetricTypes
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans import TorchTrainingPlan
from tests.support.monitors import Monitor

X = torch.arange(20.0).reshape(10, 2)
Y = (torch.arange(10) % 2).float()
BUFFERS = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
PARAMETERS = {"0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"}


class Deep(TorchTrainingPlan):
    """With buffers and dropout; gives two scores."""

    def init_model(self):
        return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2))

    def training_data(self):
        return DataManager(X.numpy(), Y.numpy())

    def training_step(self, data, target):
        return nn.functional.cross_entropy(self.model()(data), target.long())


def ready(plan_class, *, test_ratio=0.0, **args):
    plan = plan_class()
    given = TrainingArgs({"epochs": 1, "loader_args": {"batch_size": 5}, "random_seed": 3, **args}, only_required=False)
    plan.post_init({}, given)
    manager = plan.training_data()
    manager.extend_loader_args(given.loader_arguments())
    manager.load(tp_type=plan.type())
    plan.set_data_loaders(*manager.split(test_ratio, seed=0))
    return plan


def variant(**members):
    return type("Variant", (Deep,), members)


def validated(plan, metric=None, metric_args=None, *, before_train=True):
    monitor = Monitor()
    plan.testing_routine(metric=metric, metric_args=metric_args or {}, history_monitor=monitor, before_train=before_train)
    return monitor.heard


# --- parameters


def test_all_parameters_and_buffers_are_sent():
    assert set(ready(Deep).after_training_params()) == PARAMETERS | BUFFERS


def test_buffers_stay_here_when_they_are_not_shared():
    plan = ready(Deep, share_persistent_buffers=False)
    assert set(plan.after_training_params()) == set(plan.get_model_params()) == PARAMETERS


def test_trainable_parameters_alone_may_be_asked_for():
    plan = ready(Deep)
    plan.model()[0].requires_grad_(False)
    assert set(plan.get_model_params(only_trainable=True)) == PARAMETERS - {"0.weight", "0.bias"}


def test_what_is_given_out_is_a_copy():
    plan = ready(Deep)
    plan.get_model_params()["0.weight"].zero_()
    plan.after_training_params()["3.bias"].fill_(7.0)
    assert plan.model()[0].weight.abs().sum() > 0
    assert not (plan.model()[3].bias == 7.0).any()


def test_what_is_taken_over_is_a_copy():
    plan = ready(Deep)
    given = plan.get_model_params()
    plan.set_model_params(given)
    given["0.weight"].zero_()
    assert plan.model()[0].weight.abs().sum() > 0


def test_flat_parameters_are_numbers_in_the_order_of_the_names():
    plan = ready(Deep)
    flat = plan.after_training_params(flatten=True)
    # 2*3 + 3, 3 + 3 and the buffers 3 + 3 + 1, 3*2 + 2
    assert len(flat) == 9 + 6 + 7 + 8
    assert all(type(number) is float for number in flat)
    assert flat[:6] == pytest.approx(plan.model()[0].weight.flatten().tolist())


def test_parameters_survive_a_round_trip_buffers_included():
    source = ready(Deep, epochs=2)
    source.training_routine()
    target = ready(Deep, random_seed=99)
    target.set_model_params(source.after_training_params())
    for name, value in source.model().state_dict().items():
        assert torch.equal(value, target.model().state_dict()[name])
    assert target.model().state_dict()["1.num_batches_tracked"].item() == 4
    assert target.model().state_dict()["1.num_batches_tracked"].shape == ()


def test_numpy_parameters_are_taken():
    plan = ready(Deep)
    plan.set_model_params({name: value.numpy() * 0 for name, value in plan.get_model_params().items()})
    assert not plan.model()[0].weight.any()


def test_missing_and_unknown_parameters_are_said_and_passed_over(caplog):
    plan = ready(Deep)
    plan.set_model_params({"0.bias": torch.full((3,), 2.0), "unknown": torch.ones(1)})
    assert plan.model()[0].bias.tolist() == [2.0] * 3
    assert "0.weight" in caplog.text
    assert "unknown" in caplog.text


def test_missing_buffers_are_not_warned_of(caplog):
    plan = ready(Deep)
    plan.set_model_params(plan.get_model_params(only_trainable=True))
    assert caplog.text == ""


def test_training_goes_on_with_the_same_parameters_after_they_were_set():
    plan = ready(Deep)
    plan.set_model_params(plan.get_model_params())
    before = plan.get_model_params()["0.weight"]
    plan.training_routine()
    assert not torch.equal(before, plan.get_model_params()["0.weight"])


# --- postprocess


def test_postprocess_gets_the_whole_state_and_says_what_is_sent():
    heard = []

    def postprocess(self, params):
        heard.append(set(params))
        return {name: value * 0 for name, value in params.items() if name.startswith("3.")}

    sent = ready(variant(postprocess=postprocess)).after_training_params()
    assert heard == [PARAMETERS | BUFFERS]
    assert set(sent) == {"3.weight", "3.bias"}
    assert not sent["3.weight"].any()


def test_postprocess_gets_buffers_that_are_not_sent():
    heard = []

    def postprocess(self, params):
        heard.append(set(params))
        return params

    sent = ready(variant(postprocess=postprocess), share_persistent_buffers=False).after_training_params()
    assert heard == [PARAMETERS | BUFFERS]
    assert set(sent) == PARAMETERS


def test_postprocess_does_not_change_the_model():
    def postprocess(self, params):
        for value in params.values():
            value.zero_()
        return params

    plan = ready(variant(postprocess=postprocess))
    plan.after_training_params()
    assert plan.model()[0].weight.any()


def test_postprocess_and_flat_go_together():
    plan = ready(variant(postprocess=lambda self, params: {"a": torch.tensor([[1, 2]]), "b": torch.tensor(3.5)}))
    assert plan.after_training_params(flatten=True) == [1.0, 2.0, 3.5]


@pytest.mark.parametrize("wrong", [None, [1.0], 3])
def test_postprocess_that_returns_something_else_is_refused(wrong):
    with pytest.raises(FedbiomedTrainingPlanError, match=r"postprocess\(\) must return"):
        ready(variant(postprocess=lambda self, params: wrong)).after_training_params()


def test_postprocess_that_raises_is_told_with_its_name():
    with pytest.raises(FedbiomedTrainingPlanError, match=r"postprocess\(\) of plan Variant raised ZeroDivisionError"):
        ready(variant(postprocess=lambda self, params: 1 / 0)).after_training_params()


# --- files


def test_exported_model_is_imported_again(tmp_path):
    source, target = ready(Deep), ready(Deep, random_seed=99)
    source.training_routine()
    source.export_model(tmp_path / "model.pt")
    target.import_model(str(tmp_path / "model.pt"))
    for name, value in source.model().state_dict().items():
        assert torch.equal(value, target.model().state_dict()[name])


def test_import_of_another_model_is_refused_and_nothing_changes(tmp_path):
    other = ready(variant(init_model=lambda self: nn.Linear(2, 2)))
    other.export_model(tmp_path / "model.pt")
    plan = ready(Deep)
    before = plan.get_model_params()
    with pytest.raises(FedbiomedModelError, match="does not hold the parameters of this model"):
        plan.import_model(tmp_path / "model.pt")
    assert all(torch.equal(value, plan.get_model_params()[name]) for name, value in before.items())


@pytest.mark.parametrize("content", [b"", b"no model", b"\x80\x02N."])
def test_import_of_another_file_is_refused(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(FedbiomedModelError):
        ready(Deep).import_model(tmp_path / "model.pt")


def test_import_of_a_file_of_something_else_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "model.pt")
    with pytest.raises(FedbiomedModelError):
        ready(Deep).import_model(tmp_path / "model.pt")


def test_import_of_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        ready(Deep).import_model(tmp_path / "model.pt")


def test_imported_model_goes_on_training(tmp_path):
    plan = ready(Deep)
    plan.export_model(tmp_path / "model.pt")
    plan.import_model(tmp_path / "model.pt")
    before = plan.get_model_params()["3.weight"]
    plan.training_routine()
    assert not torch.equal(before, plan.get_model_params()["3.weight"])


# --- validation


def scores(count, right):
    """Scores of which the first `right` are on the true side; a model that gives them back."""
    wrong = torch.arange(count) >= right
    side = torch.where(wrong, 1 - Y[:count], Y[:count]).long()
    return nn.functional.one_hot(side, 2).float()


class Given(Deep):
    """The inputs are the scores."""

    def init_model(self):
        model = nn.Linear(2, 2, bias=False)
        model.weight.data = torch.eye(2)
        return model

    def training_data(self):
        return DataManager(scores(10, 7).numpy(), Y.numpy())


def test_accuracy_is_the_default_and_the_report_says_all():
    plan = ready(Given, test_ratio=1.0)
    assert validated(plan) == [
        {
            "metric": {"ACCURACY": pytest.approx(0.7)},
            "iteration": 1,
            "epoch": None,
            "train": False,
            "test": True,
            "test_on_local_updates": False,
            "test_on_global_updates": True,
            "total_samples": 10,
            "batch_samples": 10,
            "num_batches": 1,
            "num_samples_trained": 10,
        }
    ]


def test_report_after_training_is_of_local_updates():
    (message,) = validated(ready(Given, test_ratio=1.0), before_train=False)
    assert (message["test_on_local_updates"], message["test_on_global_updates"]) == (True, False)


def test_metric_and_its_arguments_are_used():
    # labels 0, 1, 0, 1 ... at indices 0 .. 9
    plan = ready(Given, test_ratio=1.0)
    # indices 0..6 right: ones at 1, 3, 5; indices 7, 8, 9 wrong: 7 -> 0, 8 -> 1, 9 -> 0; so ones at 1, 3, 5, 8: 3 of 4 are true,
    # and 3 of the 5 true ones (1, 3, 5, 7, 9) are found
    assert validated(plan, MetricTypes.PRECISION, {"average": "binary", "pos_label": 1})[0]["metric"] == {"PRECISION": pytest.approx(3 / 4)}
    assert validated(plan, MetricTypes.RECALL, {"average": "binary", "pos_label": 1})[0]["metric"] == {"RECALL": pytest.approx(3 / 5)}


def test_metric_of_regression():
    class Plan(Deep):
        def init_model(self):
            model = nn.Linear(1, 1, bias=False)
            model.weight.data = torch.ones(1, 1)
            return model

        def training_data(self):
            return DataManager(X[:, :1].numpy(), X[:, :1].numpy() + 3)

    plan = ready(Plan, test_ratio=1.0)
    assert validated(plan, MetricTypes.MEAN_SQUARE_ERROR)[0]["metric"] == {"MEAN_SQUARE_ERROR": pytest.approx(9.0)}


@pytest.mark.parametrize(
    ("returned", "reported"),
    [
        (0.5, {"Custom": 0.5}),
        (3, {"Custom": 3.0}),
        (torch.tensor(0.25), {"Custom": 0.25}),
        (torch.tensor([0.25]), {"Custom_1": 0.25}),
        (torch.tensor([[1.0, 2.0], [3.0, 4.0]]).numpy(), {"Custom_1": 1.0, "Custom_2": 2.0, "Custom_3": 3.0, "Custom_4": 4.0}),
        ([0.5, torch.tensor(1.5)], {"Custom_1": 0.5, "Custom_2": 1.5}),
        ((1, 2), {"Custom_1": 1.0, "Custom_2": 2.0}),
        ([torch.tensor(0.5), torch.tensor([0.25, 1.0]).bfloat16()], {"Custom_1": 0.5, "Custom_2": 0.25, "Custom_3": 1.0}),
        ({"dice": torch.tensor(0.5), "count": 3}, {"dice": 0.5, "count": 3.0}),
    ],
)
def test_testing_step_may_return(returned, reported):
    plan = ready(variant(testing_step=lambda self, data, target: returned), test_ratio=0.5)
    assert validated(plan, MetricTypes.F1_SCORE)[0]["metric"] == reported


@pytest.mark.parametrize("wrong", [None, "good", {"a": "b"}, [None], {"a": [1, 2]}])
def test_testing_step_may_not_return(wrong):
    plan = ready(variant(testing_step=lambda self, data, target: wrong), test_ratio=0.5)
    with pytest.raises(FedbiomedTrainingPlanError, match="must be a number"):
        validated(plan)


def test_testing_step_that_raises_is_told_with_its_name():
    plan = ready(variant(testing_step=lambda self, data, target: 1 / 0), test_ratio=0.5)
    with pytest.raises(FedbiomedTrainingPlanError, match=r"testing_step\(\) of plan Variant raised ZeroDivisionError"):
        validated(plan)


@pytest.mark.parametrize("before_train", [True, False])
def test_validation_is_in_evaluation_mode_without_gradients(before_train):
    modes = []

    def testing_step(self, data, target):
        modes.append((self.model().training, torch.is_grad_enabled()))
        return self.model()(data).sum()

    plan = ready(variant(testing_step=testing_step), test_ratio=0.5)
    first = validated(plan, before_train=before_train)
    assert modes == [(False, False)]
    assert plan.model().training
    assert plan.model()[2].training
    assert first == validated(plan, before_train=before_train)  # no dropout


def test_mode_is_restored_after_an_error():
    plan = ready(variant(testing_step=lambda self, data, target: 1 / 0), test_ratio=0.5)
    with pytest.raises(FedbiomedTrainingPlanError):
        validated(plan)
    assert plan.model().training
    assert torch.is_grad_enabled()


def test_layer_that_was_in_evaluation_mode_stays_in_it():
    plan = ready(Deep, test_ratio=0.5)
    plan.model()[1].eval()
    validated(plan)
    assert (plan.model().training, plan.model()[1].training, plan.model()[2].training) == (True, False, True)


def test_validation_does_not_change_the_buffers():
    plan = ready(Deep, test_ratio=0.5)
    before = plan.get_model_params()
    validated(plan)
    assert all(torch.equal(value, plan.get_model_params()[name]) for name, value in before.items())


def test_model_that_gives_no_tensor_needs_a_testing_step():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, data):
            return self.layer(data), data

    plan = ready(variant(init_model=lambda self: Two()), test_ratio=0.5)
    with pytest.raises(FedbiomedModelError, match="define testing_step"):
        validated(plan)


def test_validation_without_samples_is_a_clear_error():
    with pytest.raises(FedbiomedTrainingPlanError, match="no samples to test on"):
        validated(ready(Deep))


def test_validation_without_a_monitor_is_silent():
    ready(Given, test_ratio=0.5).testing_routine(metric=None, metric_args={}, history_monitor=None, before_train=True)
