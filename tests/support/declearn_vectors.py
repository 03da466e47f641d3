"""declearn's vectors, imported without the warnings of the libraries that it loads."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from declearn.model.sklearn import NumpyVector
    from declearn.model.torch import TorchVector
    from declearn.optimizer import Optimizer as TheirOptimizer

__all__ = ["NumpyVector", "TheirOptimizer", "TorchVector"]
