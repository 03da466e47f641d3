"""Fed-BioMed: federated learning for hospitals and research centres.

The package itself loads nothing: import what you need from the module that defines it, for example
`from fedbiomed.researcher.experiment import Experiment`.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
