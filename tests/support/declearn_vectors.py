"""declearn's vectors, imported without the warnings of the libraries that it loads."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from declearn.model.sklearn import NumpyVector
    from declearn.model.torch import TorchVector

__all__ = ["NumpyVector", "TorchVector"]
