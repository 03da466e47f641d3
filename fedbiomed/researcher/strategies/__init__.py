"""Who takes part in a round, and whose reply counts: one file per strategy."""

from fedbiomed.researcher.strategies.cyclic_order import CyclicOrder
from fedbiomed.researcher.strategies.default_strategy import DefaultStrategy
from fedbiomed.researcher.strategies.model_merge import MergeEvaluation, MergeFit, ModelMergeStrategy
from fedbiomed.researcher.strategies.strategy import Strategy

__all__ = ["CyclicOrder", "DefaultStrategy", "MergeEvaluation", "MergeFit", "ModelMergeStrategy", "Strategy"]
