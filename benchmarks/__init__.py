"""Benchmarks, run by `scripts/bench NAME`; each prints JSON."""
