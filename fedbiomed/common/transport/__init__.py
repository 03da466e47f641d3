"""How messages and files travel; two protocols and their implementations."""
