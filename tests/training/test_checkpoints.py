"""Checkpoints: read without running code; whatever does not fit is said in words."""

import io
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.data.spec import DataSpec
from mmrobust.errors import UserError
from mmrobust.methods.base import Method
from mmrobust.methods.dropout import ModalityDropout
from mmrobust.testing import describe_data, make_batch
from mmrobust.training.checkpoints import Checkpoint, checkpoint_path, load_checkpoint, load_weights
from mmrobust.training.trainer import first_selectable

Build = Callable[..., Method]
SPEC = describe_data(kinds=["vector"])


def save(method: Method, path: Path) -> Path:
    """What Lightning saves of a method, training state aside."""
    checkpoint: dict[str, Any] = {"state_dict": method.state_dict()}
    method.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return path


def serialised(content: Any, **keys: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **keys)
    return buffer.getvalue()


GOOD = {"state_dict": {"a": torch.zeros(9)}, "spec": {}, "method": "x"}


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


# Reading


def test_good_content_loads(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(serialised(GOOD))
    assert torch.equal(load_checkpoint(tmp_path / "a.ckpt")["state_dict"]["a"], torch.zeros(9))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage" * 50,
        bytes(1000),
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        serialised(GOOD)[:10],
        serialised(GOOD)[:-30],
        serialised(GOOD)[: len(serialised(GOOD)) // 2],
        serialised([1, 2]),
        serialised({"weights": torch.zeros(1)}),
        serialised({"state_dict": {}, "spec": {}}),
        b"\x80\x02.",
        serialised(GOOD, _use_new_zipfile_serialization=False)[:120],
        serialised(GOOD, _use_new_zipfile_serialization=False)[:78],
    ],
    ids=lambda content: f"{len(content)} bytes {content[:9]!r}",
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"last\.ckpt"):
        load_checkpoint(path)


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    for path in (tmp_path / "last.ckpt", tmp_path):  # a folder is none, either
        with pytest.raises(UserError, match="does not exist"):
            load_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x))])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, write: Callable[..., Any]) -> None:
    trap, path = tmp_path / "trap", tmp_path / "last.ckpt"
    write(GOOD | {"extra": Malicious(trap)}, path)
    with pytest.raises(UserError, match="more than tensors and plain values"):
        load_checkpoint(path)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Malicious(trap)))  # it would have worked
    assert trap.exists()


def test_best_falls_back_to_last(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "last.ckpt").touch()
    assert checkpoint_path(tmp_path).name == "last.ckpt"
    (folder / "best.ckpt").touch()
    assert checkpoint_path(tmp_path).name == "best.ckpt"
    assert checkpoint_path(tmp_path, "last").name == "last.ckpt"


# Restoring


def test_round_trip(tmp_path: Path, build: Build) -> None:
    method, batch = build(SPEC), make_batch(SPEC)
    with torch.no_grad():
        for tensor in method.state_dict().values():
            tensor += 1  # not what a seed gives
        expected = method(batch).logits
        other = build(SPEC)
        assert not torch.equal(other(batch).logits, expected)
        load_weights(other, save(method, tmp_path / "a.ckpt"))
        assert torch.equal(other(batch).logits, expected)


@pytest.mark.parametrize(
    ("spec", "keys", "messages"),
    [
        (SPEC, {"method": ModalityDropout}, ["methods.fusion.Fusion, not of", "methods.dropout.ModalityDropout"]),
        (describe_data(num_modalities=3, kinds=["vector"]), {}, ["trained with modalities", "'m3'"]),
        (describe_data(kinds=["sequence"]), {}, ["trained with modalities", "kind='vector'", "kind='sequence'"]),
        (replace(SPEC, num_classes=7), {}, ["trained with num_classes 4, the data has 7"]),
        (replace(SPEC, task="segmentation", modalities=describe_data().modalities), {}, ["trained with task classification, the data has segmentation"]),
        (SPEC, {"width": 16}, ["encoders.m1.layers.0.weight has shape (8, 12) instead of (16, 12)", "more"]),
    ],
)  # fmt: skip
def test_differences_are_named(
    tmp_path: Path, build: Build, spec: DataSpec, keys: dict[str, Any], messages: list[str]
) -> None:
    path, method = save(build(SPEC), tmp_path / "a.ckpt"), build(spec, **keys)
    before = {name: x.clone() for name, x in method.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_weights(method, path)
    for message in [*messages, "a.ckpt"]:
        assert message in str(error.value)
    for name, x in method.state_dict().items():
        assert torch.equal(x, before[name])


def test_missing_and_unknown_keys_are_named(tmp_path: Path, build: Build) -> None:
    path = save(build(SPEC), tmp_path / "a.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["other.bias"] = checkpoint["state_dict"].pop("head.bias")
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match=r"head\.bias is missing; other\.bias is unknown"):
        load_weights(build(SPEC), path)


def test_a_foreign_spec(tmp_path: Path, build: Build) -> None:
    path = save(method := build(SPEC), tmp_path / "a.ckpt")
    torch.save(torch.load(path, weights_only=True) | {"spec": {"task": "classification"}}, path)
    with pytest.raises(UserError, match=r"a\.ckpt"):
        load_weights(method, path)


def test_nothing_is_best_before_all_has_begun(tmp_path: Path) -> None:
    """The best of the epochs from `first` on, however good one was before."""
    trainer = SimpleNamespace(
        current_epoch=0, fit_loop=None, strategy=SimpleNamespace(reduce_boolean_decision=bool)
    )
    checkpoint = Checkpoint(dirpath=tmp_path, filename="best", monitor="val", mode="max", first=2)
    chosen = []
    for epoch, score in enumerate((0.9, 0.8, 0.5)):
        trainer.current_epoch = epoch
        chosen.append(checkpoint.check_monitor_top_k(trainer, torch.tensor(score)))  # type: ignore[arg-type]
    assert chosen == [False, False, True]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["method=dropout"], 0),
        (["method=dmrnet", "trainer.max_epochs=20"], 6),
        (["method=dmrnet", "trainer.max_epochs=20", "method.hard_weight=0"], 0),
        (["method=dmrnet", "trainer.max_epochs=3"], 2),  # too short: the last
        (["method=mmanet", "trainer.max_epochs=20"], 5),
        (["method=arl", "trainer.max_epochs=20"], 6),
        (["method=udml", "trainer.max_epochs=100"], 51),
        (["method=osmd", "trainer.max_epochs=20"], 1),
    ],
    ids=str,
)
def test_first_selectable_epoch(overrides: list[str], expected: int) -> None:
    config = compose_config(["encoder.width=8", *overrides])
    assert first_selectable(config, construct(config.method, spec=describe_data())) == expected


WRONG = {"steps": "x", "seconds": "x", "position": None, "loops": [], "state_dict": None, "lr_schedulers": 3}


@pytest.mark.parametrize("key", WRONG)
def test_wrong_content_of_a_checkpoint(key: str, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {}, "spec": {}, "method": "m"} | {key: WRONG[key]}, path)
    with pytest.raises(UserError, match=f"is damaged: {key} is not what a run of mmrobust saves"):
        load_checkpoint(path)
