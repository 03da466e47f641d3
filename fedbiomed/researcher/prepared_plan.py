"""A training plan on its way from the notebook to the nodes: class to source file, source file back to an object.

What is used on this side is the class loaded from the generated file, as on the nodes: a name that the file does not import fails here,
before anything was sent.
"""

import contextlib
import copy
import inspect
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from fedbiomed.common.checkpointing.random_states import restore_random, snapshot_random
from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedError, FedbiomedTrainingPlanError, FedbiomedUserInputError
from fedbiomed.common.training_args import TrainingArgs
from fedbiomed.common.training_plans.base_plan import BaseTrainingPlan
from fedbiomed.common.training_plans.source import load_plan_from_file
from fedbiomed.common.training_plans.user_code import call_user, make_plan
from fedbiomed.researcher.responses import read_result

logger = logging.getLogger(__name__)


def plan_class_of(training_plan: object, path: str | Path | None = None) -> type[BaseTrainingPlan]:
    """The class that was meant.

    Args:
        training_plan: a plan's class or an instance; with a path, the name of the class in that file.
        path: a `.py` file.

    Raises:
        NameError: there is no plan, or it is neither of these.
        FedbiomedTrainingPlanError: the file cannot be imported or has no such plan.
    """
    if path is not None:
        if not isinstance(training_plan, str):
            raise NameError(f"with a file, the plan is given by the name of its class, not as {training_plan!r:.80}")
        return _class_in(path, training_plan)
    plan_class = training_plan if inspect.isclass(training_plan) else type(training_plan)
    if training_plan is None or not issubclass(plan_class, BaseTrainingPlan):
        raise NameError(
            f"{ErrorNumbers.FB605.value}: a training plan is a class derived from one of fedbiomed.common.training_plans, an instance "
            f"of it, or a class name together with a file; not {training_plan!r:.80}"
        )
    return plan_class


def write_source(plan_class: type[BaseTrainingPlan], path: Path) -> None:
    """Write the file that the nodes get: the declared imports, then the source of the class.

    Raises:
        FedbiomedTrainingPlanError: the class cannot be made without arguments, or its source cannot be found.
    """
    plan = make_plan(plan_class)
    plan.configure_dependencies()
    plan.save_code(str(path))


def load_back(path: Path, class_name: str, model_args: Mapping[str, Any], training_args: TrainingArgs) -> BaseTrainingPlan:
    """Make the plan from its generated file and initialise its model.

    Raises:
        FedbiomedTrainingPlanError: it does not import, or one of its methods raises: which, and what.
    """
    plan = made_from_file(path, class_name)
    call_user(plan, "post_init", dict(model_args), training_args)
    return plan


def made_from_file(path: object, class_name: str) -> BaseTrainingPlan:
    """Make a plan from the class of that name in a file.

    Raises:
        FedbiomedTrainingPlanError: it is no file, does not import, has no such plan, or this cannot be made without arguments.
    """
    plan: BaseTrainingPlan = make_plan(_class_in(path, class_name))
    return plan


def _class_in(path: object, class_name: str) -> type[BaseTrainingPlan]:
    if not isinstance(path, str | Path):
        raise FedbiomedTrainingPlanError(f"{ErrorNumbers.FB605.value}: training_plan_path is the path of a Python file, not {path!r:.80}")
    return load_plan_from_file(path, class_name)


def checked_model_args(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments of a plan's model, a copy; none are an empty dict.

    Raises:
        FedbiomedUserInputError: they are no dict.
    """
    if given is not None and not isinstance(given, Mapping):
        raise FedbiomedUserInputError(f"{ErrorNumbers.FB414.value}: model_args must be a dict or None, not {given!r:.80}")
    return copy.deepcopy(dict(given or {}))


def full(training_args: TrainingArgs | Mapping[str, Any] | None) -> TrainingArgs:
    """Training arguments with all defaults, and apart from what was given.

    Raises:
        FedbiomedUserInputError: a key is unknown or a value is wrong.
    """
    values = training_args.dict() if isinstance(training_args, TrainingArgs) else training_args
    return TrainingArgs(values, only_required=False)


def settings(training_args: TrainingArgs) -> dict[str, Any]:
    """The arguments of which a plan hears when it is made: all but those of tests."""
    tests = training_args.testing_arguments()
    return {name: value for name, value in training_args.dict().items() if name not in tests}


def tell(plan: BaseTrainingPlan, model_args: Mapping[str, Any], training_args: TrainingArgs) -> None:
    """Tell a plan that has a model other training arguments; its parameters, and the global random generators, stay as they are.

    Raises:
        FedbiomedTrainingPlanError: one of its methods raises with them; the plan is as before.
        FedbiomedDPControllerError: they ask for differential privacy, which does not go with this plan; as before, too.
    """
    own, states = plan.get_model_params(), snapshot_random()
    try:
        with undone_on_failure(plan):
            call_user(plan, "post_init", dict(model_args), training_args)
            plan.set_model_params(own)
    finally:
        restore_random(states)


@contextlib.contextmanager
def undone_on_failure(plan: BaseTrainingPlan) -> Iterator[None]:
    """Put the plan's attributes back as they were when the block raises, in which its model and optimizer are made anew."""
    before = dict(vars(plan))
    try:
        yield
    except BaseException:
        vars(plan).clear()
        vars(plan).update(before)
        raise


def assign(plan: BaseTrainingPlan, params: Mapping[str, Any], staying: Collection[str]) -> None:
    """Give the plan's model parameters; those that are not among them stay as they are, with a warning.

    Args:
        plan: of this side.
        params: by name.
        staying: names that each node keeps to itself; that they are missing is no surprise.

    Raises:
        FedbiomedModelError: a shape differs from the model's.
    """
    own = plan.get_model_params() if staying else {}
    plan.set_model_params({**params, **{name: value for name, value in own.items() if name in staying and name not in params}})


def some_params(plan: BaseTrainingPlan, names: Collection[str]) -> dict[str, Any]:
    """Those of the plan's parameters that have one of these names; where none is asked for the model is not looked at."""
    return {name: value for name, value in plan.get_model_params().items() if name in names} if names else {}


def put_back(plan: BaseTrainingPlan, params_path: str, staying: Collection[str]) -> None:
    """Give the plan's model the parameters in a file again; if they are lost, only the log says so: something else is being raised.

    Args:
        plan, staying: see `assign`.
        params_path: of the file.
    """
    try:
        assign(plan, read_result(Path(params_path))["model_weights"], staying)
    except FedbiomedError as error:
        logger.error("the model on this side may not be as it was before: %s", error)


def generated_source(plan_class: type[BaseTrainingPlan]) -> bytes:
    """The bytes of the file that the nodes would get, see `write_source`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "training_plan.py"
        write_source(plan_class, path)
        return path.read_bytes()


def readable_source(training_plan: object) -> bytes:
    """The bytes of a plan's file, for an operator to read.

    Args:
        training_plan: the plan's class, an instance, or the path of a file.

    Raises:
        FedbiomedUserInputError: none of these, or the file cannot be read.
    """
    if isinstance(training_plan, str | Path):
        try:
            return Path(training_plan).read_bytes()
        except OSError as error:
            raise FedbiomedUserInputError(f"cannot read the plan {training_plan}: {error.strerror}") from error
    try:
        return generated_source(plan_class_of(training_plan))
    except (NameError, FedbiomedTrainingPlanError) as error:
        raise FedbiomedUserInputError(str(error)) from error
