"""The conformance kit over everything in conf/: a new file is covered without anyone remembering it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.utils import get_class

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config, conf_folder
from mmrobust.data.base import DataModule
from mmrobust.data.spec import KINDS, DataSpec, Modality
from mmrobust.errors import UserError
from mmrobust.methods.base import Method
from mmrobust.models.encoders import build_encoder
from mmrobust.tasks.registry import TASKS
from mmrobust.testing import check_dataset, check_method, describe_data, make_batch, step
from tests.data.trees import SMALL, TREES, ready


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_folder() / group).glob("*.yaml") if path.stem != "inherit")


def written(group: str, name: str) -> dict[str, Any]:
    """The keys that stand in a choice's file."""
    keys: dict[str, Any] = yaml.safe_load((conf_folder() / group / f"{name}.yaml").read_text())
    return keys


def build_dataset(name: str, root: Path, *overrides: str) -> DataModule:
    """A dataset of conf/data on generated files in its own layout."""
    if name in TREES:
        TREES[name](root / name)
    return ready(name, root, *overrides)


def builder(*overrides: str):  # type: ignore[no-untyped-def]
    width = [] if any(text.startswith("experiment=") for text in overrides) else ["encoder.width=16"]
    config = compose_config([*width, *overrides])

    def build(spec: DataSpec) -> Method:
        method: Method = construct(config.method, spec=spec)
        return method

    return build


def method_class(name: str) -> type[Method]:
    found: type[Method] = get_class(written("method", name)["_target_"])
    return found


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DataModule]:
    return {name: build_dataset(name, tmp_path_factory.mktemp(name)) for name in choices("data")}


# Each task, and each number of modalities with vectors and with maps.
MADE_UP = [("classification", 2), ("classification", 3), ("segmentation", 2), ("segmentation", 3)]
MADE_UP += [(task, 3) for task in TASKS if task not in ("classification", "segmentation")]


@pytest.mark.parametrize("name", choices("method"))
@pytest.mark.parametrize(("task", "num_modalities"), MADE_UP)
def test_method(name: str, task: str, num_modalities: int) -> None:
    kinds = ("image",) if task == "segmentation" else ("image", "text", "vector")
    build = builder(f"method={name}")
    spec = describe_data(num_modalities=num_modalities, kinds=kinds, task=task)
    if task in method_class(name).tasks:
        check_method(build, spec)
    else:
        with pytest.raises(UserError, match="the dataset's task is"):
            build(spec)


# Methods that build more of a fusion than one, or look into what it gives: the others meet it as dropout does.
LOOK_INTO_FUSIONS = ("dmrnet", "mmanet", "dropout")


@pytest.mark.parametrize("method", LOOK_INTO_FUSIONS)
@pytest.mark.parametrize("fusion", choices("fusion"))
def test_fusion(fusion: str, method: str) -> None:
    """In the fusion's first task."""
    spec = describe_data(num_modalities=3, task=tasks_of_fusion(fusion)[0])
    check_method(builder(f"method={method}", f"fusion={fusion}"), spec)


@pytest.mark.parametrize("fusion", choices("fusion"))
def test_fusion_in_segmentation(fusion: str) -> None:
    build, spec = builder("method=dropout", f"fusion={fusion}"), describe_data(task="segmentation")
    if "segmentation" in tasks_of_fusion(fusion):
        check_method(build, spec)
    else:
        with pytest.raises(UserError, match="the dataset's task is segmentation"):
            build(spec)


def tasks_of_fusion(name: str) -> tuple[str, ...]:
    fusion = get_class(written("fusion", name)["_target_"])
    return getattr(fusion, "tasks", Method.tasks)


@pytest.mark.parametrize("name", choices("data"))
def test_dataset(name: str, datasets: dict[str, DataModule]) -> None:
    check_dataset(datasets[name])


# Each method on one dataset of each task, each dataset with the method that all do.
PAIRS = [
    *((method, data) for method in choices("method") for data in ("avmnist", "nyuv2")),
    *(("dropout", data) for data in choices("data") if data not in ("avmnist", "nyuv2")),
]


@pytest.mark.parametrize(("method", "data"), PAIRS)
def test_method_on_dataset(method: str, data: str, datasets: dict[str, DataModule]) -> None:
    """One step on the dataset's own batch."""
    if datasets[data].spec.task not in method_class(method).tasks:
        pytest.skip(f"{method} does no {datasets[data].spec.task}")
    model = builder(f"method={method}", f"data={data}")(datasets[data].spec)
    batch = next(iter(datasets[data].loader("train", shuffle=True)))
    terms = step(model, batch)
    assert all(term.isfinite() for term in terms.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe", [name for name in choices("experiment") if not name.startswith("ablation_")]
)
def test_recipe(recipe: str, tmp_path: Path) -> None:
    """A published setting takes a step on generated files in its dataset's layout, without the weights of others."""
    config = compose_config([f"experiment={recipe}"])
    name, task = config.choices.data, config.data.get("task")
    data = build_dataset(
        name, tmp_path, *(["data.task=scene", "data.validation=0.5"] if task == "scene" else [])
    )
    method = builder(f"experiment={recipe}", "encoder.pretrained=false", *SMALL.get(name, ()))(data.spec)
    terms = step(method, next(iter(data.loader("train", shuffle=True))))
    assert all(term.isfinite() for term in terms.values())


def test_every_recipe_says_what_still_differs() -> None:
    silent = [
        path.name
        for path in (conf_folder() / "experiment").rglob("*.yaml")
        if not any(line.startswith("#") and "differs" in line for line in path.read_text().splitlines())
    ]
    assert silent == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encoder", choices("encoder"))
def test_encoder(encoder: str, kind: str) -> None:
    if encoder not in ("tiny", "text") and not KINDS[kind].is_map:
        pytest.skip("image networks read maps alone; test_encoders.py checks the refusal")
    overrides = [f"encoder={encoder}", *(["encoder.name=mobilenetv3_small_050"] if encoder == "timm" else [])]
    config = compose_config(overrides).encoder
    spec = describe_data(kinds=(kind,))
    modality: Modality = spec.modalities["m1"]
    keys = ("name", "pretrained", "weights", "norm", "width", "options")
    network = build_encoder(modality, **{key: config[key] for key in keys})
    features = network(make_batch(spec, size=2).inputs["m1"])
    assert features.shape[:2] == (2, network.width)
