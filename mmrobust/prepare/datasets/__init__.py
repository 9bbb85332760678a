"""A module for each dataset: what becomes of its download, and what is officially known of it."""
