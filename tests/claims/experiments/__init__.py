"""Experiments on what the four papers claim: `make claims`."""
