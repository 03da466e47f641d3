"""The nodes' half of federated algorithms on torch plans: one file per algorithm."""
