"""Measurements, each run by `scripts/bench`."""
