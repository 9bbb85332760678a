"""Datasets: `base.py` is what they share, then one file for each."""
