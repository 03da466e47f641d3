"""Torch plans: hooks, steps, iterations."""

import pytest
import torch
from torch import nn

from fedbiomed.common.constants import TrainingPlans
from fedbiomed.common.exceptions import (
    FedbiomedOptimizerError,
    FedbiomedTrainingPlanError,
    FedbiomedUserInputError,
)
from fedbiomed.common.training_plans import TorchTrainingPlan
from tests.support.torch_variants import Line, arguments, ready, seen, slope, trained, variant

# --- hooks


def test_type_is_that_of_torch():
    assert Line().type() is TrainingPlans.TorchTrainingPlan


def test_hooks_may_take_their_arguments():
    def init_model(self, model_args):
        return nn.Linear(model_args["inputs"], 3)

    def init_optimizer(self, optimizer_args):
        return torch.optim.SGD(self.model().parameters(), **optimizer_args)

    plan = variant(init_model=init_model, init_optimizer=init_optimizer)()
    plan.post_init({"inputs": 4}, arguments(optimizer_args={"lr": 0.25, "momentum": 0.5}))
    assert plan.model().weight.shape == (3, 4)
    assert plan.optimizer().optimizer.param_groups[0]["momentum"] == 0.5
    assert (plan.model_args(), plan.optimizer_args()) == ({"inputs": 4}, {"lr": 0.25, "momentum": 0.5})
    assert plan.loader_args() == {"batch_size": 2}
    assert set(plan.training_args()) == {"batch_maxnum", "fedprox_mu", "log_interval", "dry_run", "epochs", "use_gpu", "num_updates"}


def test_adam_is_the_default_and_takes_the_arguments_lists_too():
    class Plan(TorchTrainingPlan):
        def init_model(self):
            return nn.Linear(1, 1)

        def training_data(self):
            return None

        def training_step(self, data, target):
            return None

    plan = Plan()
    plan.post_init({}, arguments(optimizer_args={"lr": 0.5, "betas": [0.8, 0.9]}))
    adam = plan.optimizer().optimizer
    assert isinstance(adam, torch.optim.Adam)
    assert (adam.param_groups[0]["lr"], tuple(adam.param_groups[0]["betas"])) == (0.5, (0.8, 0.9))
    adam.zero_grad()
    plan.model()(torch.ones(1, 1)).sum().backward()
    adam.step()


@pytest.mark.parametrize("hook", ["init_model", "init_optimizer"])
def test_hook_of_two_arguments_is_refused(hook):
    with pytest.raises(FedbiomedTrainingPlanError, match=rf"{hook}\(\) of Variant takes 2 arguments, it may take one or none"):
        variant(**{hook: lambda self, a, b: None})().post_init({}, arguments())


@pytest.mark.parametrize("wrong", [None, 3, nn.Linear, [nn.Linear(1, 1)]])
def test_init_model_that_returns_something_else_is_refused(wrong):
    with pytest.raises(FedbiomedTrainingPlanError, match=r"init_model\(\) must return a torch.nn.Module"):
        variant(init_model=lambda self: wrong)().post_init({}, arguments())


@pytest.mark.parametrize("wrong", [None, "sgd", torch.optim.SGD])
def test_init_optimizer_that_returns_something_else_is_refused(wrong):
    with pytest.raises(FedbiomedOptimizerError, match=r"init_optimizer\(\) must return"):
        variant(init_optimizer=lambda self: wrong)().post_init({}, arguments())


@pytest.mark.parametrize("hook", ["init_model", "init_optimizer", "init_dependencies", "training_step"])
def test_what_a_hook_raises_is_told_with_its_name(hook):
    def failing(self, *args):
        raise KeyError("no such column")

    with pytest.raises(FedbiomedTrainingPlanError, match=rf"{hook}\(\) of plan Variant raised KeyError: 'no such column'"):
        trained(variant(**{hook: failing}))


def test_model_and_optimizer_before_post_init_are_clear_errors():
    for ask in (Line().model, Line().optimizer, Line().get_model_params, lambda: Line().set_model_params({})):
        with pytest.raises(FedbiomedTrainingPlanError, match=r"call post_init\(\) first"):
            ask()


def test_caller_s_model_args_are_not_changed():
    given = {"inputs": 1}

    def init_model(self, model_args):
        model_args["more"] = 1
        return nn.Linear(1, 1)

    variant(init_model=init_model)().post_init(given, arguments())
    assert given == {"inputs": 1}


def test_attributes_set_in_init_model_are_there_in_the_steps():
    def init_model(self):
        self.loss = nn.MSELoss()
        return nn.Linear(1, 1)

    plan, _ = trained(variant(init_model=init_model, training_step=lambda self, data, target: self.loss(self.model()(data), target)))
    assert isinstance(plan.loss, nn.MSELoss)


# --- steps, worked out by hand


def test_one_step_is_that_of_gradient_descent():
    # batch x = 1, 2, y = 2, 4, a = 1: gradient = mean((ax - y) x) = (-1 - 4) / 2 = -2.5; a = 1 + 0.1 * 2.5 = 1.25
    # loss = mean((1 - 2)^2, (2 - 4)^2) / 2 = 1.25
    plan, monitor = trained(Line, epochs=None, num_updates=1)
    assert slope(plan) == pytest.approx(1.25)
    assert monitor.values("Loss") == [pytest.approx(1.25)]


def test_fedprox_pulls_back_to_the_start_from_the_second_step_on():
    # step 1: the distance is 0: a = 1.25 as above
    # step 2, x = 3, 4, y = 6, 8: gradient = mean((1.25x - 2x) x) = -0.75 * 12.5 = -9.375; proximal 2 * (1.25 - 1) = 0.5;
    #   a = 1.25 + 0.1 * 8.875 = 2.1375; the reported loss is the uncorrected 0.75^2 * 12.5 / 2 = 3.515625
    plan, monitor = trained(Line, epochs=None, num_updates=2, fedprox_mu=2.0)
    assert slope(plan) == pytest.approx(2.1375)
    assert monitor.values("Loss") == [pytest.approx(1.25), pytest.approx(3.515625)]
    assert plan.initial_parameters()["weight"].item() == 1.0


def test_fedprox_of_weight_zero_changes_nothing():
    assert slope(trained(Line, fedprox_mu=0.0)[0]) == slope(trained(Line)[0])


def test_fedprox_pulls_to_what_was_set_by_the_researcher():
    plan = ready(Line, epochs=None, num_updates=1, fedprox_mu=1.0)
    plan.set_model_params({"weight": torch.tensor([[2.0]])})
    plan.training_routine()
    assert slope(plan) == 2.0  # y = 2x fits, and the start is 2


def test_frozen_parameters_stay_and_fedprox_leaves_them_out():
    def init_model(self):
        model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
        model[0].requires_grad_(False)
        return model

    plan = ready(variant(init_model=init_model), fedprox_mu=0.5)
    before = plan.get_model_params()
    plan.training_routine()
    after = plan.get_model_params()
    assert torch.equal(before["0.weight"], after["0.weight"])
    assert not torch.equal(before["1.weight"], after["1.weight"])
    assert set(plan.initial_parameters()) == set(plan.get_model_params(only_trainable=True)) == {"1.weight"}


@pytest.mark.parametrize(
    ("wrong", "found"),
    [(None, "NoneType"), (1.0, "float"), (torch.ones(2, requires_grad=True), "a tensor of 2"), ((torch.ones(1),), "tuple")],
)
def test_training_step_must_return_one_number(wrong, found):
    with pytest.raises(FedbiomedTrainingPlanError, match=rf"training_step\(\) must return a loss of one number, not {found}"):
        trained(variant(training_step=lambda self, data, target: wrong))


def test_training_step_must_depend_on_the_parameters():
    with pytest.raises(FedbiomedTrainingPlanError, match="depends on the model's parameters"):
        trained(variant(training_step=lambda self, data, target: torch.tensor(1.0)))


def test_loss_of_shape_one_is_taken():
    step = variant(training_step=lambda self, data, target: Line.training_step(self, data, target).reshape(1))
    assert slope(trained(step, fedprox_mu=1.0)[0]) == slope(trained(Line, fedprox_mu=1.0)[0])


@pytest.mark.parametrize("mu", [None, 0.5])
def test_loss_of_shape_one_by_one_is_taken(mu):
    step = variant(training_step=lambda self, data, target: Line.training_step(self, data, target).reshape(1, 1))
    assert slope(trained(step, fedprox_mu=mu)[0]) == slope(trained(Line, fedprox_mu=mu)[0])


# --- how long, and what is reported


def test_epochs_report_first_and_last_batch():
    # 5 samples in batches of 2: 3 batches an epoch; the 10th of them all is not among 6
    assert seen(epochs=2) == [(1, 1, 2), (1, 3, 5), (2, 1, 2), (2, 3, 5)]


def test_log_interval_counts_batches_of_the_whole_training():
    assert seen(epochs=2, log_interval=1) == [(1, 1, 2), (1, 2, 4), (1, 3, 5), (2, 1, 2), (2, 2, 4), (2, 3, 5)]
    assert seen(epochs=2, log_interval=5) == [(1, 1, 2), (1, 3, 5), (2, 1, 2), (2, 2, 4), (2, 3, 5)]


def test_cap_of_batches_beyond_what_there_is_changes_nothing():
    assert slope(trained(Line, epochs=2, batch_maxnum=100)[0]) == slope(trained(Line, epochs=2)[0])
    assert seen(batch_maxnum=100) == seen(batch_maxnum=0) == seen()


def test_cap_of_batches_ends_each_epoch():
    assert seen(epochs=2, batch_maxnum=2, log_interval=100) == [(1, 1, 2), (1, 2, 4), (2, 1, 2), (2, 2, 4)]
    assert slope(trained(Line, epochs=1, batch_maxnum=2)[0]) == slope(trained(Line, epochs=None, num_updates=2)[0])


def test_number_of_updates_counts_on_over_the_passes():
    assert seen(epochs=None, num_updates=5, log_interval=1) == [(None, 1, 2), (None, 2, 4), (None, 3, 5), (None, 4, 7), (None, 5, 9)]


def test_updates_go_before_epochs_and_cap():
    assert seen(epochs=7, num_updates=2, batch_maxnum=1, log_interval=1) == [(None, 1, 2), (None, 2, 4)]


def test_dry_run_ends_after_one_step():
    assert seen(epochs=3, dry_run=True) == [(1, 1, 2)]
    assert seen(epochs=None, num_updates=3, dry_run=True) == [(None, 1, 2)]
    assert slope(trained(Line, epochs=3, dry_run=True)[0]) == pytest.approx(1.25)


@pytest.mark.parametrize("none", [{"epochs": 0}, {"epochs": None, "num_updates": 0}])
def test_nothing_is_trained_where_nothing_is_asked(none):
    plan, monitor = trained(Line, **none)
    assert (slope(plan), monitor.heard) == (1.0, [])


def test_neither_epochs_nor_updates_is_a_clear_error():
    with pytest.raises(FedbiomedUserInputError, match="epochs"):
        trained(Line, epochs=None)
