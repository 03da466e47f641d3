"""How sure a model is: weight posteriors, ensembles, dropout at test time, and whether the probabilities can be believed."""

from fedbiomed.common.uncertainty.calibration import Calibration, calibration_curve, expected_calibration_error
from fedbiomed.common.uncertainty.ensemble import DeepEnsemble
from fedbiomed.common.uncertainty.mc_dropout import MCDropout
from fedbiomed.common.uncertainty.predictive import Prediction, predictive
from fedbiomed.common.uncertainty.swag import SWAG

__all__ = [
    "SWAG",
    "Calibration",
    "DeepEnsemble",
    "MCDropout",
    "Prediction",
    "calibration_curve",
    "expected_calibration_error",
    "predictive",
]
