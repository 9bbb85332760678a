"""Which launchers are installed. Imports no torch."""

from __future__ import annotations

from importlib.util import find_spec

EXTRAS = {  # launcher -> the plugin's package, and the extra that brings it
    "joblib": ("hydra_joblib_launcher", "joblib"),
    "submitit_local": ("hydra_submitit_launcher", "slurm"),
    "submitit_slurm": ("hydra_submitit_launcher", "slurm"),
    "ray": ("hydra_ray_launcher", "ray"),
}


def not_installed(launcher: str) -> str | None:
    """What is to be installed before a launcher can be used."""
    package, extra = EXTRAS.get(launcher, ("", ""))
    if not package or (find_spec("hydra_plugins") and find_spec(f"hydra_plugins.{package}")):
        return None
    return f"hydra/launcher={launcher} is not installed: pip install 'mmrobust[{extra}]'"
