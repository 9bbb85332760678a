"""Small generated trees in the layouts of the datasets: name -> function of a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.data.base import DataModule
from mmrobust.errors import UserError
from mmrobust.prepare.synthetic import avmnist, casia_surf, cityscapes, nyuv2, sunrgbd
from tests.data.ave_tree import make_ave
from tests.data.cremad_tree import make_cremad
from tests.data.handwritten_tree import make_handwritten
from tests.data.kinetics_sounds_tree import make_kinetics_sounds
from tests.data.manifest_tree import make_manifest
from tests.data.multiview_tree import make_multiview
from tests.data.utd_mhad_tree import make_utd_mhad


def ready(name: str, data_folder: Path, *overrides: str) -> DataModule:
    """The dataset of that name whose tree lies in a folder of datasets, set up."""
    keys = [f"data={name}", f"paths.data={data_folder}", "data.batch_size=4", "data.workers=0"]
    keys += [key.format(root=data_folder) for key in SMALL.get(name, ())]
    data: DataModule = construct(compose_config([*keys, *overrides]).data)
    data.setup()
    return data


def problem(name: str, data_folder: Path, *overrides: str) -> str:
    """What is said of a tree that cannot be used."""
    with pytest.raises(UserError) as caught:
        ready(name, data_folder, *overrides)
    return str(caught.value)


def plant(name: str, root: Path) -> None:
    """Make the tree of that dataset below its root."""
    {**TREES, "cremad": make_cremad, "handwritten": make_handwritten}[name](root)


def built(name: str, root: Path | None, **changes: Any) -> Any:
    """The dataset of that name whose tree is `root`; the keys that are not given are small ones or its own."""
    keys = {"batch_size": 4, "workers": 0, **KEYS.get(name, {}), **changes}
    return construct(compose_config([f"data={name}"]).data, root=None if root is None else str(root), **keys)


def dataset(name: str, root: Path | None, **changes: Any) -> Any:
    """The same, set up."""
    data = built(name, root, **changes)
    data.setup()
    return data


def refused(name: str, root: Path | None, **changes: Any) -> str:
    """What is said of a tree, or of keys, that cannot be used."""
    with pytest.raises(UserError) as caught:
        dataset(name, root, **changes)
    return str(caught.value)


def make_cremad_tree(root: Path) -> None:
    make_cremad(root, actors=4, sentences=3, frames=2)


def make_handwritten_tree(root: Path) -> None:
    make_handwritten(root.with_name("handwritten6"))


def make_manifest_tree(root: Path) -> None:
    make_manifest(root)


TREES: dict[str, Callable[[Path], None]] = {
    "ave": make_ave,
    "avmnist": avmnist.make,
    "casia_surf": casia_surf.make,
    "cityscapes": cityscapes.make,
    "cremad": make_cremad_tree,
    "handwritten": make_handwritten_tree,
    "kinetics_sounds": make_kinetics_sounds,
    "manifest": make_manifest_tree,
    "multiview": make_multiview,
    "nyuv2": nyuv2.make,
    "sunrgbd": sunrgbd.make,
    "utd_mhad": make_utd_mhad,
}

CLIPS = {"image_size": 16, "sample_rate": 8000, "seconds": 1, "n_fft": 128, "hop": 100}

# What suits the trees: keys of data.
KEYS: dict[str, dict[str, Any]] = {
    "ave": {**CLIPS, "frames": 2},
    "cremad": {"validation": 0.25},
    "handwritten": {"validation": 0.25},
    "kinetics_sounds": {
        **CLIPS,
        "validation": 0.34,
        "tiled": 2,
        "classes": ["tapping pen", "bowling ", "singing", "playing_drums"],
    },
    "utd_mhad": {
        "validation": 0.25,
        "frames": 4,
        "image_size": 16,
        "skeleton_steps": 10,
        "inertial_steps": 12,
        "motion": False,
        "cache": None,
    },
}

# The same as overrides; {root} is the folder of datasets.
SMALL: dict[str, list[str]] = {
    "cityscapes": ["data.image_size=[32,48]"],
    "manifest": ["data.manifest={root}/manifest/my.csv", "data.columns=[rgb,audio,vector]"],
    "multiview": ["data.file=set.mat", "data.validation=0.2"],
    "nyuv2": ["data.image_size=[32,48]"],
    "sunrgbd": ["data.image_size=[32,48]"],
}

# Overrides that suit what is prepared of generated downloads.
PREPARED: dict[str, list[str]] = {
    "ave": ["data.image_size=16", "data.seconds=1"],
    "cremad": ["data.image_size=16", "data.seconds=1"],
    "kinetics_sounds": ["data.image_size=16", "data.seconds=1", "data.tiled=1", "data.validation=0.34"],
}
