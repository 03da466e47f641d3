"""Identities, key agreement and ciphers, on top of the `cryptography` library."""
