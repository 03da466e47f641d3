"""Optimizers of the plans' libraries behind one face."""

from fedbiomed.common.optimizers.native import NativeSkLearnOptimizer, NativeTorchOptimizer

__all__ = ["NativeSkLearnOptimizer", "NativeTorchOptimizer"]
