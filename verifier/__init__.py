"""Verifiers in other languages: files that the node serves and integrators take, no Python."""
