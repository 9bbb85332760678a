"""What a change of the house must keep: numbers, weights, names. `contract.json` holds the frozen values.

After a deliberate change of one of them: `python -m tests.test_contract` writes the file anew; say in the commit
which changed, and why.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config, conf_folder
from mmrobust.evaluation.results import read_results
from mmrobust.methods.base import Method
from mmrobust.testing import describe_data
from mmrobust.training.lifecycle import execute
from mmrobust.training.session import build_method, open_data

FILE = Path(__file__).with_name("contract.json")
FROZEN: dict[str, Any] = json.loads(FILE.read_text()) if FILE.is_file() else {}

SMALL = [
    "data=synthetic",
    "data.num_train=24",
    "data.num_val=16",
    "data.num_test=16",
    "data.batch_size=8",
    "data.size=8",
    "data.variants=[1, 2]",
    "encoder=tiny",
    "encoder.width=8",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "threads=1",
]

# So small that what begins late in training (mining, weights) begins within the few steps.
METHODS = {
    "dmrnet": ["method.mining_epochs=1"],
    "mmanet": ["method.warm_up=1", "method.mining_epochs=1"],
    "osmd": ["method.ramp_epochs=1"],
    "udml": ["method.weights_from=0.5", "noise.train.start=0"],
}


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_folder() / group).glob("*.yaml") if path.stem != "inherit")


def short(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


class Terms(Callback):
    """The loss terms of every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, method: LightningModule, *rest: Any) -> None:
        assert isinstance(method, Method)
        self.steps.append({name: float(term) for name, term in method.last_terms.items()})


def losses(name: str, teacher: Path) -> list[dict[str, float]]:
    """The terms of six training steps, with a validation after the third, and the final mean over combinations."""
    more = [f"method.teacher.run={teacher}"] if name == "mmanet" else []
    config = compose_config([*SMALL, f"method={name}", *METHODS[name], *more])
    torch.set_num_threads(1)
    data = open_data(config)
    method, terms = build_method(config, data.spec), Terms()
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[terms],
    )
    trainer.fit(method, datamodule=data)
    return [*terms.steps, {"val": float(trainer.callback_metrics["val"])}]


def weights(name: str) -> dict[str, Any]:
    """Of a method that is just built: its state's names, how many numbers, and a sum in which the order counts."""
    config = compose_config([f"method={name}", "encoder=tiny", "encoder.width=8"])
    torch.manual_seed(0)
    method = construct(config.method, spec=describe_data(kinds=("image", "spectrogram")))
    state = method.state_dict()
    total = sum((i + 1) * x.double().abs().mean().item() for i, x in enumerate(state.values()) if x.numel())
    return {"keys": short(list(state)), "numbers": sum(x.numel() for x in state.values()), "sum": total}


def configuration(*overrides: str) -> str:
    """All keys and values that follow from the overrides, but no class's path and no folder."""
    plain: Any = OmegaConf.to_container(compose_config(list(overrides)))
    del plain["paths"]
    return short(re.sub(r'"_target_": "[^"]*"', "", json.dumps(plain, sort_keys=True)))


def keys(node: Any, path: str = "") -> list[str]:
    """The keys of nested containers, with dots."""
    if not isinstance(node, dict) or not node:
        return [path]
    return [name for key, child in node.items() for name in keys(child, f"{path}.{key}" if path else key)]


def targets() -> dict[str, list[str]]:
    """Every `_target_` in conf/, by file."""
    found: dict[str, list[str]] = {}
    for path in sorted(conf_folder().rglob("*.yaml")):
        if names := re.findall(r"^[ -]*_target_: *(\S+)", path.read_text(), re.MULTILINE):
            found[path.relative_to(conf_folder()).as_posix()] = names
    return found


def teacher_run(folder: Path) -> Path:
    given = [*SMALL, "method=fusion", "trainer.max_epochs=1", "logger=none", f"paths.outputs={folder}"]
    return execute(compose_config(given), given)


def result_keys(run: Path) -> dict[str, Any]:
    results = read_results(run)
    shown = {key: value for key, value in results.items() if key not in ("identity", "combinations")}
    checked = OmegaConf.load(run / "config.yaml")
    assert isinstance(yaml.safe_load((run / "config.yaml").read_text()), dict)
    return {
        "results": keys(shown),
        "identity": sorted(results["identity"]),
        "combination": keys(next(iter(results["combinations"].values()))),
        "files": sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()),
        "config": sorted(str(key) for key in checked),
    }


def without_torch(modules: list[str]) -> str:
    """What the first of these modules that imports torch is; "" if none does."""
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules or 'lightning' in sys.modules: print(name); break\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return teacher_run(tmp_path_factory.mktemp("teacher"))


@pytest.mark.parametrize("name", METHODS)
def test_losses(name: str, teacher: Path) -> None:
    seen, frozen = losses(name, teacher), FROZEN["losses"][name]
    assert [list(step) for step in seen] == [list(step) for step in frozen]
    for step, before in zip(seen, frozen, strict=True):
        assert step == pytest.approx(before, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("name", choices("method"))
def test_first_weights(name: str) -> None:
    seen, frozen = weights(name), FROZEN["weights"][name]
    assert seen.pop("sum") == pytest.approx(frozen["sum"], rel=1e-6)
    assert seen == {key: value for key, value in frozen.items() if key != "sum"}


@pytest.mark.parametrize("group", ["method", "data"])
def test_configurations(group: str) -> None:
    assert {name: configuration(f"{group}={name}") for name in choices(group)} == FROZEN["configurations"][
        group
    ]


def test_keys() -> None:
    plain: Any = OmegaConf.to_container(compose_config([]))
    assert keys(plain) == FROZEN["keys"]


def test_targets() -> None:
    assert targets() == FROZEN["targets"]


def test_results_and_files(teacher: Path) -> None:
    assert result_keys(teacher) == FROZEN["run"]


def test_imports_no_torch() -> None:
    assert without_torch(FROZEN["without_torch"]) == ""


def write() -> None:
    """Freeze what is."""
    with tempfile.TemporaryDirectory() as folder:
        run = teacher_run(Path(folder))
        plain: Any = OmegaConf.to_container(compose_config([]))
        frozen = {
            "losses": {name: losses(name, run) for name in METHODS},
            "weights": {name: weights(name) for name in choices("method")},
            "configurations": {
                group: {name: configuration(f"{group}={name}") for name in choices(group)}
                for group in ("method", "data")
            },
            "keys": keys(plain),
            "targets": targets(),
            "run": result_keys(run),
            # written by hand: a module leaves this list deliberately
            "without_torch": FROZEN["without_torch"],
        }
    FILE.write_text(json.dumps(frozen, indent=1) + "\n")


if __name__ == "__main__":
    write()
