"""Evaluation: all modality combinations in one pass, their metrics, the result file."""
