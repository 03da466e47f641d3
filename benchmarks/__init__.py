"""Measurements, run by `scripts/bench NAME`; a package, so that no installed one of that name comes first."""
