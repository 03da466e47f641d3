"""Secure aggregation without a network: what nodes and researcher compute, and the rules by which they refuse."""
