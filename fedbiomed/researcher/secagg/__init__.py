"""Secure aggregation on the researcher's side: its settings, and what the parties agreed on."""

from fedbiomed.researcher.secagg.context import SecaggBiprimeContext, SecaggContext, SecaggServkeyContext
from fedbiomed.researcher.secagg.secure_aggregation import SecureAggregation

__all__ = ["SecaggBiprimeContext", "SecaggContext", "SecaggServkeyContext", "SecureAggregation"]
