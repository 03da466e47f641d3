"""Regularizers and modules of declearn that an `Optimizer` is made of; others are there under `declearn` itself."""

from fedbiomed.common.declearn_library import (
    AdaGradModule,
    AdamModule,
    EWMAModule,
    FedProxRegularizer,
    LassoRegularizer,
    MomentumModule,
    RidgeRegularizer,
    RMSPropModule,
    ScaffoldClientModule,
    ScaffoldServerModule,
    YogiModule,
    YogiMomentumModule,
    list_optim_modules,
    list_optim_regularizers,
)

__all__ = [
    "AdaGradModule",
    "AdamModule",
    "EWMAModule",
    "FedProxRegularizer",
    "LassoRegularizer",
    "MomentumModule",
    "RMSPropModule",
    "RidgeRegularizer",
    "ScaffoldClientModule",
    "ScaffoldServerModule",
    "YogiModule",
    "YogiMomentumModule",
    "list_optim_modules",
    "list_optim_regularizers",
]
