"""Robust multimodal learning."""
