"""How the nodes' updates become the next parameters: one file per aggregator."""

from fedbiomed.researcher.aggregators.aggregator import Aggregator
from fedbiomed.researcher.aggregators.fedavg import FedAverage
from fedbiomed.researcher.aggregators.functional import federated_averaging, initialize, weighted_sum
from fedbiomed.researcher.aggregators.scaffold import Scaffold

__all__ = ["Aggregator", "FedAverage", "Scaffold", "federated_averaging", "initialize", "weighted_sum"]
