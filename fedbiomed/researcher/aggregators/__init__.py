"""How the nodes' updates become the next parameters: one file per aggregator."""

from fedbiomed.researcher.aggregators.aggregator import Aggregator
from fedbiomed.researcher.aggregators.apfl import APFL
from fedbiomed.researcher.aggregators.ditto import Ditto
from fedbiomed.researcher.aggregators.fedadagrad import FedAdagrad
from fedbiomed.researcher.aggregators.fedadam import FedAdam
from fedbiomed.researcher.aggregators.fedavg import FedAverage
from fedbiomed.researcher.aggregators.fedavgm import FedAvgM
from fedbiomed.researcher.aggregators.feddgga import FedDGGA
from fedbiomed.researcher.aggregators.fednova import FedNova
from fedbiomed.researcher.aggregators.fedopt import FedOpt
from fedbiomed.researcher.aggregators.fedpca import FedPCA
from fedbiomed.researcher.aggregators.fedpm import FedPM
from fedbiomed.researcher.aggregators.fedprox import FedProx
from fedbiomed.researcher.aggregators.fedyogi import FedYogi
from fedbiomed.researcher.aggregators.flash import Flash
from fedbiomed.researcher.aggregators.functional import federated_averaging, initialize, weighted_sum
from fedbiomed.researcher.aggregators.geometric_median import GeometricMedian
from fedbiomed.researcher.aggregators.krum import Krum, MultiKrum
from fedbiomed.researcher.aggregators.median import Median
from fedbiomed.researcher.aggregators.moon import MOON
from fedbiomed.researcher.aggregators.mrmtl import MRMTL
from fedbiomed.researcher.aggregators.scaffold import Scaffold
from fedbiomed.researcher.aggregators.trimmed_mean import TrimmedMean

__all__ = [
    "APFL",
    "MOON",
    "MRMTL",
    "Aggregator",
    "Ditto",
    "FedAdagrad",
    "FedAdam",
    "FedAverage",
    "FedAvgM",
    "FedDGGA",
    "FedNova",
    "FedOpt",
    "FedPCA",
    "FedPM",
    "FedProx",
    "FedYogi",
    "Flash",
    "GeometricMedian",
    "Krum",
    "Median",
    "MultiKrum",
    "Scaffold",
    "TrimmedMean",
    "federated_averaging",
    "initialize",
    "weighted_sum",
]
