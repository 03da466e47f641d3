"""Training plans on torch."""

import contextlib
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from fedbiomed.common.checkpointing.early_stopping import EarlyStopper
from fedbiomed.common.checkpointing.random_states import random_kept
from fedbiomed.common.checkpointing.training_state import TrainingState
from fedbiomed.common.constants import ErrorNumbers, TrainingPlans
from fedbiomed.common.exceptions import FedbiomedDPControllerError, FedbiomedTrainingPlanError
from fedbiomed.common.metrics import MetricTypes
from fedbiomed.common.models.torch_model import TorchModel
from fedbiomed.common.optimizers.base import BaseOptimizer
from fedbiomed.common.optimizers.wrap import torch_optimizer
from fedbiomed.common.privacy_cost import PrivacyCost
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.base_plan import BaseTrainingPlan, HistoryMonitor
from fedbiomed.common.training_plans.correction_choice import chosen_corrections
from fedbiomed.common.training_plans.corrections.correction import Step, Tools
from fedbiomed.common.training_plans.devices import choose_device
from fedbiomed.common.training_plans.evaluation import evaluate, metric_values, named
from fedbiomed.common.training_plans.iterations import first_length, planned_steps
from fedbiomed.common.training_plans.privacy import PrivateTraining, fitted_module
from fedbiomed.common.training_plans.torch_half import TorchHalf
from fedbiomed.common.training_plans.user_code import call_function, call_user
from fedbiomed.common.uncertainty.swag import SWAG

logger = logging.getLogger(__name__)


class TorchTrainingPlan(BaseTrainingPlan):
    """A plan whose model is a `torch.nn.Module`.

    A user's class defines `init_model`, `training_step` and `training_data`, and may define `init_optimizer`, `init_dependencies`,
    `testing_step(data, target)` and `postprocess(params)`.
    """

    supports_privacy = True

    def __init__(self) -> None:
        super().__init__()
        self._optimizer: BaseOptimizer | None = None
        self._initial_params: dict[str, torch.Tensor] = {}
        self._half: TorchHalf | None = None
        self._total_steps = 0
        self._private: PrivateTraining | None = None

    # --- hooks

    @abstractmethod
    def init_model(self, model_args: dict[str, Any]) -> nn.Module:
        """Build the model; may also take no argument."""

    @abstractmethod
    def training_step(self, data: Any, target: Any) -> torch.Tensor:
        """Loss of one batch, a scalar tensor with gradient."""

    def init_optimizer(self, optimizer_args: dict[str, Any]) -> Any:
        """Build the optimizer: of torch, an `Optimizer`, or one of declearn; torch's Adam unless overridden; may take no argument."""
        return torch.optim.Adam(self.model().parameters(), **optimizer_args)

    def early_stopping(self) -> EarlyStopper | None:
        """What watches the validation loss of a training, by steps; None: nothing. Needs a `test_ratio` above 0."""
        return None

    def builtin_dependencies(self) -> list[str]:
        """See `BaseTrainingPlan`; the order matters to who approved a plan by its text."""
        return [
            "import torch",
            "import torch.nn as nn",
            "import torch.nn.functional as F",
            "from fedbiomed.common.training_plans import TorchTrainingPlan",
            "from fedbiomed.common.data import DataManager",
            "from fedbiomed.common.constants import ProcessTypes",
            "from torch.utils.data import DataLoader",
            "from torchvision import datasets, transforms",
        ]

    def type(self) -> TrainingPlans:
        """See `BaseTrainingPlan`."""
        return TrainingPlans.TorchTrainingPlan

    # --- what node and researcher call

    def post_init(
        self, model_args: Mapping[str, Any], training_args: TrainingArgs, aggregator_args: Mapping[str, Any] | None = None
    ) -> None:
        """See `BaseTrainingPlan`."""
        self._store_args(model_args, training_args, aggregator_args)
        dp_args = training_args.dp_arguments()
        self._private = None if dp_args is None else PrivateTraining(dp_args, training_args["random_seed"])
        self._seed()
        self.configure_dependencies()
        module = self._call_hook("init_model", self._model_args)
        if not isinstance(module, nn.Module):
            raise FedbiomedTrainingPlanError(f"FB605: init_model() must return a torch.nn.Module, not {type(module).__name__}")
        self._model = TorchModel(module if self._private is None else fitted_module(module))
        self._optimizer = torch_optimizer(self._model, self._call_hook("init_optimizer", dict(self._optimizer_args)))
        if self._private is not None:
            self._require_clippable(self._optimizer.optimizer)

    def optimizer(self) -> BaseOptimizer:
        """See `BaseTrainingPlan`."""
        if self._optimizer is None:
            raise FedbiomedTrainingPlanError(
                f"FB605: the optimizer of {type(self).__name__} has not been built yet: call post_init() first"
            )
        return self._optimizer

    def node_half(self) -> TorchHalf:
        """See `BaseTrainingPlan`; one for the life of the plan, which is a round."""
        if self._half is None:
            self._half = TorchHalf(chosen_corrections(self._arguments, self._aggregator_args))
        return self._half

    def swag(self) -> SWAG | None:
        """The posterior of this node's own weights in its last training, with the low-rank part, for instance in `testing_step`.

        None where the experiment has no `SWAGTrainer`, and before the node's first training.
        """
        return self.node_half().posterior(self.model())

    def initial_parameters(self) -> dict[str, torch.Tensor]:
        """Trainable parameters as they were when training began, by name."""
        return self._initial_params

    def training_routine(self, history_monitor: HistoryMonitor | None = None, node_args: Mapping[str, Any] | None = None) -> None:
        """See `BaseTrainingPlan`."""
        self._preprocess()
        self._require_training_data()
        device = self._choose_device(node_args)
        module: nn.Module = self.model().to(device)
        module.train()
        self._initial_params = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}
        try:
            half = self.node_half()
            half.begin(module, self._initial_params, Tools(self._loss_of, self._new_optimizer, self._optional_hook, self.optimizer()))
            self.optimizer().init_training()
            with self._privately(module):
                self._loop(device, self._begun_stopper(module), history_monitor)
            half.end()
        finally:
            module.cpu()
        self._optimizer_args = {**self._optimizer_args, "lr": self.optimizer().learning_rates(module)}

    def privacy_cost(self) -> PrivacyCost | None:
        """See `BaseTrainingPlan`."""
        return None if self._private is None else self._private.cost(self.updates_done())

    def why_optimizer_stays(self) -> str | None:
        """See `BaseTrainingPlan`."""
        if self._private is not None:
            return "the cost of privacy with dp_args is that of sent parameters, and the state would be sent beside them"
        if type(self).training_routine is not TorchTrainingPlan.training_routine:
            return f"{type(self).__name__} has a training_routine() of its own, which does not hand it over"
        return None

    def _require_clippable(self, optimizer: Any) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise FedbiomedDPControllerError(
                f"{ErrorNumbers.FB616.value}: dp_args go with optimizers of torch; init_optimizer() of {type(self).__name__} returned one "
                "made of declearn's modules: return for instance torch.optim.SGD(self.model().parameters(), lr=0.1), or leave dp_args out"
            )
        if type(self).training_routine is not TorchTrainingPlan.training_routine:
            raise FedbiomedDPControllerError(
                f"{ErrorNumbers.FB616.value}: {type(self).__name__} has a training_routine() of its own, in which nothing is clipped: "
                "leave it out, or dp_args"
            )

    @contextlib.contextmanager
    def _privately(self, module: nn.Module) -> Iterator[None]:
        """With `dp_args`, a block in which steps are private and batches are drawn by Poisson sampling."""
        if self._private is None:
            yield
            return
        given, shares = self.training_data_loader, self._arguments["share_persistent_buffers"]
        optimizer = self.optimizer().optimizer
        with self._private.training(
            module, optimizer, given, self.node_half(), stream=self.noise_stream, are_buffers_shared=shares
        ) as drawn:
            if self.privacy_guard is not None:
                self.privacy_guard(self._private.cost(planned_steps(len(drawn), self.training_args())))
            self.training_data_loader = drawn
            try:
                yield
            finally:
                self.training_data_loader = given

    def _loop(self, device: torch.device, stopper: EarlyStopper | None, history_monitor: HistoryMonitor | None) -> None:
        try:
            for steps, batch in enumerate(self._training_batches(), 1):
                epoch = batch.epoch or (batch.iteration - 1) // len(self.training_data_loader) + 1
                loss = self._train_on(Step(_moved(batch.data, device), _moved(batch.target, device), steps, epoch))
                self._total_steps += 1
                if loss is not None and batch.is_reported and history_monitor is not None:
                    history_monitor.add_scalar(metric={"Loss": float(loss.detach())}, **batch.scalars())
                if stopper is not None and stopper.should_stop(steps):
                    break
        finally:
            if stopper is not None:
                stopper.end()

    def _begun_stopper(self, module: nn.Module) -> EarlyStopper | None:
        stopper = call_user(self, "early_stopping")
        if stopper is None:
            return None
        if not isinstance(stopper, EarlyStopper):
            raise FedbiomedTrainingPlanError(f"FB605: early_stopping() must return an EarlyStopper or None, not {type(stopper).__name__}")
        half = self.node_half()
        if half.counts_steps or half.has_personal_model:
            why = "counts on num_updates steps from every node" if half.counts_steps else "trains two models on each node"
            raise FedbiomedTrainingPlanError(f"FB605: early stopping does not go with this experiment's aggregator, which {why}")
        self._require_testing_data()
        stopper.begin(module, self.validation_loss)
        return stopper

    def _require_testing_data(self) -> None:
        if self.testing_data_loader is None or not len(self.testing_data_loader):
            raise FedbiomedTrainingPlanError("FB605: there are no samples to measure a loss on: give a test_ratio above 0")

    def validation_loss(self) -> float:
        """See `BaseTrainingPlan`: mean of `training_step` over samples, in evaluation mode; random states stay as they are."""
        self._require_testing_data()
        device = next((parameter.device for parameter in self.model().parameters()), torch.device("cpu"))
        total, samples = 0.0, 0
        with self._torch_model().evaluating(), torch.no_grad(), random_kept():
            for data, target in self.testing_data_loader:
                loss = call_user(self, "training_step", _moved(data, device), _moved(target, device))
                size = first_length(data)
                total, samples = total + float(loss) * size, samples + size
        return total / samples

    def training_state(self) -> TrainingState:
        """See `BaseTrainingPlan`: model, torch optimizer and number of steps too; an optimizer of declearn is kept by the node itself."""
        native = self.optimizer().optimizer
        optimizers = native if isinstance(native, torch.optim.Optimizer) else None
        return TrainingState(model=self.model(), optimizers=optimizers, counters={"total_steps": self._total_steps})

    def take_counters(self, counters: Mapping[str, int | float]) -> None:
        """See `BaseTrainingPlan`."""
        self._total_steps = int(counters["total_steps"])

    def total_steps(self) -> int:
        """Steps done by this plan, those of earlier rounds too where the node keeps its state."""
        return self._total_steps

    def _train_on(self, step: Step) -> torch.Tensor | None:
        """One step; returns the plan's own loss, without corrections; None where there is no sample to have one."""
        half = self.node_half()
        half.step_begins(step)
        if self._private is not None:
            return self._train_privately_on(step, half, self._private)
        self.optimizer().zero_grad()
        loss = self._loss_of(step.data, step.target)
        torch.autograd.backward(half.corrected_loss(loss))
        half.correct_gradients()
        self.optimizer().step()
        half.step_done(step, loss.detach())
        return loss

    def _train_privately_on(self, step: Step, half: TorchHalf, private: PrivateTraining) -> torch.Tensor | None:
        """The same with clipping and noise; a batch without samples is a step of noise alone."""
        private.zero_grad()
        size = first_length(step.data)
        loss = self._loss_of(step.data, step.target) if size else None
        if loss is not None:
            torch.autograd.backward(loss)
        private.step(size)
        half.step_done(step, torch.zeros(()) if loss is None else loss.detach())
        return loss

    def _loss_of(self, data: Any, target: Any) -> torch.Tensor:
        loss = call_user(self, "training_step", data, target)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            found = f"a tensor of {loss.numel()}" if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise FedbiomedTrainingPlanError(f"FB605: training_step() must return a loss of one number, not {found}")
        if not loss.requires_grad:
            raise FedbiomedTrainingPlanError("FB605: training_step() must return a loss that depends on the model's parameters")
        return loss

    def _new_optimizer(self) -> BaseOptimizer:
        return torch_optimizer(self._torch_model(), self._call_hook("init_optimizer", dict(self._arguments.optimizer_arguments())))

    def _optional_hook(self, name: str) -> Callable[..., Any] | None:
        found = getattr(self, name, None)
        return partial(call_function, self, found, name) if callable(found) else None

    def _choose_device(self, node_args: Mapping[str, Any] | None) -> torch.device:
        gpu_count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        name, warning = choose_device(use_gpu=self._arguments["use_gpu"], node_args=node_args, gpu_count=gpu_count)
        if warning:
            logger.warning(warning)
        return torch.device(name)

    def testing_routine(
        self, metric: MetricTypes | None, metric_args: Mapping[str, Any], history_monitor: HistoryMonitor | None, before_train: bool
    ) -> None:
        """See `BaseTrainingPlan`; accuracy unless told otherwise; a `testing_step` goes first. In evaluation mode, without gradients.

        Where the algorithm has a personal model, that one is tested, and the shared one as `shared_<metric>` beside it.
        """
        values_of, personal = self._values_of(metric, metric_args), self.node_half().personal(self.model())
        with self._torch_model().evaluating(), torch.no_grad():
            if personal is None:
                evaluate(self.testing_data_loader, values_of, history_monitor, before_train=before_train)
                return
            with personal:
                evaluate(self.testing_data_loader, values_of, history_monitor, before_train=before_train)
            shared = _renamed(values_of)
            evaluate(self.testing_data_loader, shared, history_monitor, before_train=before_train)

    def _values_of(self, metric: MetricTypes | None, metric_args: Mapping[str, Any]) -> Callable[[Any, Any], Mapping[str, float]]:
        if hasattr(self, "testing_step"):
            return lambda data, target: named("Custom", call_user(self, "testing_step", data, target))
        model = self._torch_model()
        return lambda data, target: metric_values(metric or MetricTypes.ACCURACY, metric_args, target, model.predict(data))

    def get_model_params(self, only_trainable: bool = False) -> dict[str, Any]:
        """See `BaseTrainingPlan`; without buffers where they are not shared."""
        return self._torch_model().get_weights(only_trainable=only_trainable, with_buffers=self._arguments["share_persistent_buffers"])

    def after_training_params(self, flatten: bool = False) -> dict[str, Any] | list[float]:
        """See `BaseTrainingPlan`: through the user's `postprocess`, and without buffers where they are not shared."""
        params = self._postprocessed() if hasattr(self, "postprocess") else self.get_model_params()
        params = params if self._private is None else self._private.leaving(params)
        if flatten:
            return [float(number) for value in params.values() for number in torch.as_tensor(value).detach().cpu().reshape(-1).tolist()]
        return params

    def _postprocessed(self) -> dict[str, Any]:
        """What the user makes of all parameters and buffers; then without buffers where they are not shared."""
        params = call_user(self, "postprocess", self._torch_model().get_weights())
        if not isinstance(params, dict):
            raise FedbiomedTrainingPlanError(f"FB605: postprocess() must return the parameters by name, not {type(params).__name__}")
        if self._arguments["share_persistent_buffers"]:
            return params
        buffers = {name for name, _ in self.model().named_buffers()}
        return {name: value for name, value in params.items() if name not in buffers}

    def _torch_model(self) -> TorchModel:
        self._wrapped()
        return cast(TorchModel, self._model)


def _renamed(values_of: Callable[[Any, Any], Mapping[str, float]]) -> Callable[[Any, Any], Mapping[str, float]]:
    """The same values, named as those of the shared model."""
    return lambda data, target: {f"shared_{name}": value for name, value in values_of(data, target).items()}


def _moved(values: Any, device: torch.device) -> Any:
    """Nested tuples, lists and dicts of tensors, on a device."""
    if isinstance(values, torch.Tensor):
        return values.to(device)
    if isinstance(values, dict):
        return {name: _moved(value, device) for name, value in values.items()}
    if isinstance(values, tuple | list):
        moved = [_moved(value, device) for value in values]
        return type(values)(*moved) if hasattr(values, "_fields") else type(values)(moved)
    raise FedbiomedTrainingPlanError(f"FB605: a batch holds tensors in tuples, lists or dicts, not {type(values).__name__}")
