"""How the nodes' updates become the next parameters: one file per aggregator."""

from fedbiomed.researcher.aggregators.aggregator import Aggregator
from fedbiomed.researcher.aggregators.apfl import APFL
from fedbiomed.researcher.aggregators.client_level_dp import ClientLevelDP
from fedbiomed.researcher.aggregators.ditto import Ditto
from fedbiomed.researcher.aggregators.dynamiclayers import DynamicLayers
from fedbiomed.researcher.aggregators.fedadagrad import FedAdagrad
from fedbiomed.researcher.aggregators.fedadam import FedAdam
from fedbiomed.researcher.aggregators.fedavg import FedAverage
from fedbiomed.researcher.aggregators.fedavgm import FedAvgM
from fedbiomed.researcher.aggregators.fedbn import FedBN
from fedbiomed.researcher.aggregators.feddgga import FedDGGA
from fedbiomed.researcher.aggregators.fednova import FedNova
from fedbiomed.researcher.aggregators.fedopt import FedOpt
from fedbiomed.researcher.aggregators.fedpca import FedPCA
from fedbiomed.researcher.aggregators.fedper import FedPer
from fedbiomed.researcher.aggregators.fedpm import FedPM
from fedbiomed.researcher.aggregators.fedprox import FedProx
from fedbiomed.researcher.aggregators.fedrep import FedRep
from fedbiomed.researcher.aggregators.fedyogi import FedYogi
from fedbiomed.researcher.aggregators.fenda import Fenda
from fedbiomed.researcher.aggregators.flash import Flash
from fedbiomed.researcher.aggregators.functional import federated_averaging, initialize, weighted_sum
from fedbiomed.researcher.aggregators.geometric_median import GeometricMedian
from fedbiomed.researcher.aggregators.krum import Krum, MultiKrum
from fedbiomed.researcher.aggregators.median import Median
from fedbiomed.researcher.aggregators.moon import MOON
from fedbiomed.researcher.aggregators.mrmtl import MRMTL
from fedbiomed.researcher.aggregators.perfcl import PerFCL
from fedbiomed.researcher.aggregators.scaffold import Scaffold
from fedbiomed.researcher.aggregators.sparseexchange import SparseExchange
from fedbiomed.researcher.aggregators.trimmed_mean import TrimmedMean

__all__ = [
    "APFL",
    "MOON",
    "MRMTL",
    "Aggregator",
    "ClientLevelDP",
    "Ditto",
    "DynamicLayers",
    "FedAdagrad",
    "FedAdam",
    "FedAverage",
    "FedAvgM",
    "FedBN",
    "FedDGGA",
    "FedNova",
    "FedOpt",
    "FedPCA",
    "FedPM",
    "FedPer",
    "FedProx",
    "FedRep",
    "FedYogi",
    "Fenda",
    "Flash",
    "GeometricMedian",
    "Krum",
    "Median",
    "MultiKrum",
    "PerFCL",
    "Scaffold",
    "SparseExchange",
    "TrimmedMean",
    "federated_averaging",
    "initialize",
    "weighted_sum",
]
