"""The description of a run in `results.json`: its identity, and the protocol of the evaluation."""

from __future__ import annotations

import functools
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from omegaconf import DictConfig, OmegaConf

from mmrobust import missing
from mmrobust.config.build import class_of
from mmrobust.config.identity import config_hash
from mmrobust.config.keys import NOT_IN_RECIPE, encoder_entries
from mmrobust.config.scaling import describe_optimization
from mmrobust.evaluation.combinations import Results
from mmrobust.evaluation.results import SCHEMA, study_of
from mmrobust.files import file_hash
from mmrobust.tasks.metric import direction

if TYPE_CHECKING:
    from mmrobust.data.base import DataModule
    from mmrobust.methods.base import Method


def describe(config: DictConfig, data: DataModule, results: Results, split: str = "test") -> dict[str, Any]:
    """The evaluation's parts of `results.json`: identity, protocol, optimization, combinations and aggregates."""
    added = {name: metric.to_dict() for name, metric in results.added.items()}
    return {
        "schema": SCHEMA,
        "status": "partial"
        if config.trainer.fast_dev_run or config.trainer.limit_test_batches
        else "complete",
        "identity": {
            **{key: config.choices.get(key) for key in ("method", "data", "encoder", "experiment")},
            # some methods fuse in a way of their own
            "fusion": config.choices.get("fusion") if "fusion" in config.method else None,
            "encoders": describe_encoders(config.encoder),
            "task": data.spec.task,
            "unverified": cast(
                "type[Method]", class_of(config.method._target_, "method._target_")
            ).unverified,
            "seed": config.seed,
            "config_hash": config_hash(config),
            "recipe_hash": config_hash(config, without=NOT_IN_RECIPE),
            "overrides": _overrides(Path(config.paths.run)),
            "git": _git_commit(),
            "versions": {name: _version(name) for name in ("mmrobust", "torch", "lightning", "timm")},
            "teacher": _teacher(config),
            "study": study_of(config),
        },
        "protocol": {
            "split": split,
            "data_split": config.data.get("split"),
            "data_fingerprint": data.fingerprint,
            "skipped": data.skipped,
            "classes": data.spec.num_classes,
            "modalities": list(data.spec.modalities),
            **_sample(data, results),
            **_families(data, results),
            "selection": config.selection,
            "trials": config.study.trials,
            "chosen": list(config.study.chosen or []),
            "missing": {part: _missing(config, data, part, split) for part in ("train", "test")},
            "noise": {part: _noise(config, data, part, split) for part in ("train", "test")},
        },
        "optimization": describe_optimization(config),
        "primary": {"metric": results.primary, "direction": direction(results.primary)},
        "combinations": results.combinations,
        "aggregates": results.aggregates,
        **({"metrics": added} if added else {}),
    }


def _sample(data: DataModule, results: Results) -> dict[str, Any]:
    """The number of evaluated combinations and of all, if only a sample was evaluated."""
    count, of = len(results.combinations), 2 ** len(data.spec.modalities) - 1
    return {"sample": {"combinations": count, "of": of}} if count < of else {}


def describe_encoders(encoder: DictConfig) -> str:
    """List the encoders' names with the source of their weights and, if they differ, their modalities."""
    networks: dict[str, list[str]] = {}
    for modality, entry in {**encoder_entries(encoder), "": encoder}.items():
        words = [str(entry["name"])]
        if entry.get("weights"):
            words += ["with", Path(entry["weights"]).name]
        elif entry.get("pretrained"):
            words += ["pretrained"]
        networks.setdefault(" ".join(words), []).append(modality)
    if len(networks) == 1:
        return next(iter(networks))
    return ", ".join(
        f"{name} ({', '.join(filter(None, whose)) or 'others'})" for name, whose in networks.items()
    )


def _families(data: DataModule, results: Results) -> dict[str, Any]:
    """The dataset's metric families, if any, and the source of their thresholds."""
    if not data.spec.metrics:
        return {}
    fixed = any(not np.isnan(values).all() for values in results.thresholds.values())
    return {"metrics": list(data.spec.metrics), "threshold": "validation" if fixed else "argmax"}


def _missing(config: DictConfig, data: DataModule, part: str, split: str) -> dict[str, Any]:
    """The keys of a missing protocol, and the rates that it realised on the split."""
    keys: dict[str, Any] = OmegaConf.to_container(config.missing[part], resolve=True)  # type: ignore[assignment]
    name = keys.pop("_target_").rpartition(".")[2].lower()
    masks = data.masks.get("train" if part == "train" else split)
    # A test on other data than the run's own has no split train.
    if masks is None:
        return {"protocol": {"name": name, **keys}, "hash": None, "realised_rate": None}
    rates = {
        m: round(float(1 - column.mean()), 4) for m, column in zip(data.spec.modalities, masks.T, strict=True)
    }
    return {"protocol": {"name": name, **keys}, "hash": missing.fingerprint(masks), "realised_rate": rates}


def _noise(config: DictConfig, data: DataModule, part: str, split: str) -> dict[str, Any]:
    """The keys of a noise protocol, and the realised share of noisy samples (for train, in the last epoch)."""
    keys: dict[str, Any] = OmegaConf.to_container(config.noise[part], resolve=True)  # type: ignore[assignment]
    name = keys.pop("_target_").rpartition(".")[2].lower()
    if name != "clean":
        keys["seed"] = config.noise.seed
    last = max(config.trainer.max_epochs, 1) - 1
    if part == "train" and "train" not in data.splits:
        return {"protocol": {"name": name, **keys}, "realised_share": None}
    levels = data.splits["train" if part == "train" else split].noise_levels(last if part == "train" else 0)
    shares = (levels > 0).mean(0).round(4).tolist()
    realised = dict(zip(data.spec.modalities, shares, strict=True))
    return {"protocol": {"name": name, **keys}, "realised_share": realised}


def _overrides(folder: Path) -> list[str]:
    path = folder / "overrides.txt"
    return path.read_text().split("\n")[:-1] if path.is_file() else []


def _version(package: str) -> str | None:
    """The version of an installed package; None for a checkout that is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@functools.cache
def _git_commit() -> str | None:
    """The commit of the checkout; cached, because it must describe the code that this process has loaded."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _teacher(config: DictConfig) -> dict[str, str] | None:
    from mmrobust.training.checkpoints import checkpoint_path

    teacher = config.method.get("teacher")
    if not teacher:
        return None
    return {"run": teacher.run, "sha256": file_hash(checkpoint_path(teacher.run))}
