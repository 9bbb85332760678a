"""Methods: `base.py` is what they share, then one file for each, which reads like its paper."""
