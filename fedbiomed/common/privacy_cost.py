"""What differential privacy costs: (epsilon, delta) of a series of noisy releases, by Renyi differential privacy.

One thing is counted: the sampled Gaussian mechanism (Mironov et al. 2019, arXiv:1908.10530), as the library dp-accounting does it. A step
of DP-SGD on a batch drawn by Poisson sampling is one such mechanism; so is a release without sampling, its rate being 1. Neighbouring
datasets differ by one sample that is added or removed.
"""

import contextlib
import importlib
import importlib.util
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fedbiomed.common.constants import ErrorNumbers
from fedbiomed.common.exceptions import FedbiomedDPControllerError

DEFAULT_DELTA = 1e-5
_PACKAGES = {"opacus": "opacus", "dp_accounting": "dp-accounting"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyCost:
    """So many equal steps.

    Args:
        sample_rate: probability with which each sample is in a batch; 1: all are.
        noise_multiplier: standard deviation of the noise, in units of the sensitivity; 0: no noise.
        steps: how often.

    Raises:
        FedbiomedDPControllerError: a value is out of its range.
    """

    sample_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.sample_rate <= 1 or not 0 <= self.noise_multiplier < float("inf") or self.steps < 0:
            raise FedbiomedDPControllerError(
                f"{ErrorNumbers.FB616.value}: a cost has a sample rate above 0 and up to 1, a noise multiplier and a number of steps of "
                f"0 or more, not {self.sample_rate}, {self.noise_multiplier}, {self.steps}"
            )


def spent_epsilon(costs: Iterable[PrivacyCost], delta: float) -> float:
    """The epsilon of all these steps together; infinite where a step had no noise.

    Args:
        costs: in any order.
        delta: above 0, below 1.

    Raises:
        FedbiomedDPControllerError: delta is out of its range, or dp-accounting is not installed.
    """
    if isinstance(delta, bool) or not isinstance(delta, int | float) or not 0 < delta < 1:
        raise FedbiomedDPControllerError(f"{ErrorNumbers.FB616.value}: delta is a number above 0 and below 1, not {delta!r:.80}")
    together: dict[tuple[float, float], int] = {}
    for cost in costs:
        key = (cost.sample_rate, cost.noise_multiplier)
        together[key] = together.get(key, 0) + cost.steps
    together = {key: steps for key, steps in together.items() if steps}
    if not together:
        return 0.0
    if any(noise == 0 for _, noise in together):
        return float("inf")
    accounting = imported_quietly("dp_accounting")
    accountant = imported_quietly("dp_accounting.rdp").RdpAccountant()
    with _without_remarks():
        for (rate, noise), steps in together.items():
            event = accounting.GaussianDpEvent(noise)
            accountant.compose(event if rate == 1 else accounting.PoissonSampledDpEvent(rate, event), steps)
        return float(accountant.get_epsilon(delta))


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """The accountant tells of each order that it leaves out, which only makes its bound looser."""
    logger, before = logging.getLogger("absl"), logging.getLogger("absl").level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def require_installed() -> None:
    """Make sure that the packages behind `dp_args` are there, without importing them.

    Raises:
        FedbiomedDPControllerError: one is not: how to install it.
    """
    for module in _PACKAGES:
        if importlib.util.find_spec(module) is None:
            raise _missing(module)


def imported_quietly(name: str) -> Any:
    """A module of opacus or dp-accounting: late, for they are extras, and heavy.

    opacus installs a log handler at its import, which is taken away again.

    Raises:
        FedbiomedDPControllerError: it is not installed.
    """
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _missing(name.partition(".")[0]) from error
    finally:
        for handler in [handler for handler in root.handlers if handler not in before]:
            root.removeHandler(handler)


def _missing(module: str) -> FedbiomedDPControllerError:
    return FedbiomedDPControllerError(
        f"{ErrorNumbers.FB616.value}: differential privacy needs the package {_PACKAGES[module]}, which is not installed here: "
        "pip install 'fedbiomed[dp]'"
    )
