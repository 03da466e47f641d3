"""The names of declearn that this project uses, imported without the deprecation warnings of what declearn loads along.

Takes a second, and loads torch: import this late where no optimizer of declearn may be in play.
"""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of network libraries, which are not used here
    from declearn.model.api import Vector
    from declearn.model.sklearn import NumpyVector
    from declearn.model.torch import TorchVector
    from declearn.optimizer import Optimizer, list_optim_modules, list_optim_regularizers
    from declearn.optimizer.modules import (
        AdaGradModule,
        AdamModule,
        AuxVar,
        EWMAModule,
        MomentumModule,
        OptiModule,
        RMSPropModule,
        ScaffoldAuxVar,
        ScaffoldClientModule,
        ScaffoldServerModule,
        YogiModule,
        YogiMomentumModule,
    )
    from declearn.optimizer.regularizers import FedProxRegularizer, LassoRegularizer, Regularizer, RidgeRegularizer
    from declearn.optimizer.schedulers import Scheduler

__all__ = [
    "AdaGradModule",
    "AdamModule",
    "AuxVar",
    "EWMAModule",
    "FedProxRegularizer",
    "LassoRegularizer",
    "MomentumModule",
    "NumpyVector",
    "OptiModule",
    "Optimizer",
    "RMSPropModule",
    "Regularizer",
    "RidgeRegularizer",
    "ScaffoldAuxVar",
    "ScaffoldClientModule",
    "ScaffoldServerModule",
    "Scheduler",
    "TorchVector",
    "Vector",
    "YogiModule",
    "YogiMomentumModule",
    "list_optim_modules",
    "list_optim_regularizers",
]
