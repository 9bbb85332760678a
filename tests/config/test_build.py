"""What a place of the configuration may build: a class of its role, whatever package it lies in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from mmrobust.config.build import check_classes, class_of, classes_in, construct, refused
from mmrobust.config.check import check_command_line
from mmrobust.config.compose import compose_config
from mmrobust.config.roles import PLACES, role_of
from mmrobust.config.trust import allowed_by, trusted, trusting
from mmrobust.errors import UserError


def config(changes: dict[str, Any]) -> Any:
    found = compose_config(["method=late"])
    for key, value in changes.items():
        OmegaConf.update(found, key, value, merge=False, force_add=True)
    return found


def test_every_class_in_conf_is_of_its_role() -> None:
    for method in ("dmrnet", "osmd", "udml", "mmanet"):
        check_classes(compose_config([f"method={method}", "logger=both", "noise=udml_v1", "missing=mcar"]))
    for schedule in ("warmup_steps", "onecycle", "step", "constant"):
        check_classes(compose_config([f"schedule={schedule}"]))


def test_the_place_says_the_role() -> None:
    assert role_of("method.encoder.rgb.name") is PLACES["encoder.name"]
    assert role_of("callbacks.x._target_") is PLACES["callbacks.*"]
    names = {
        role_of(place).name for place in ("callbacks.x.y", "callbacks", "data.root", "trainer.plugins[0]")
    }
    assert names == {"a class that a run is made of"}


WRONG = {
    "another role": {"data": {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "val"}},
    "a network as a logger": {"logger.x": {"_target_": "torch.nn.Linear"}},
    "a callback as an optimizer": {"method.optimizer": {"_target_": "lightning.pytorch.callbacks.Timer"}},
    "a function": {"method.schedule": {"_target_": "torch.optim.lr_scheduler.wraps", "_partial_": True}},
    "a class of another role in the right package": {"data": {"_target_": "mmrobust.data.manifest.Path"}},
    "a function in the right package": {"callbacks.x": {"_target_": "mmrobust.training.children._wait"}},
    "a function inside the arguments": {
        "callbacks.x": {
            "_target_": "lightning.pytorch.callbacks.LambdaCallback",
            "on_fit_start": {"_target_": "mmrobust.training.children._wait", "_partial_": True},
        }
    },
    "in a list": {"callbacks.x": [{"y": {"_target_": "mmrobust.run.main"}}]},
    "functools": {"method.optimizer": {"_target_": "functools.partial", "_args_": ["os.system"]}},
    "functools by another name": {"method.optimizer": {"_target_": "mmrobust.config.build.partial"}},
    "what finds others": {"callbacks.x": {"_target_": "mmrobust.config.build.get_object", "path": "os.system"}},
    "a method of a class": {"data": {"_target_": "mmrobust.data.manifest.Manifest.infer"}},
    "an instance": {"logger.x": {"_target_": "mmrobust.loggers.TARGETS"}},
    "an encoder": {"encoder.m1.name": "pathlib.Path"},
    "an encoder's arguments": {"encoder.options": {"act_layer": {"_target_": "torch.hub.load", "repo_or_dir": "x"}}},
    "an encoder that is none": {"encoder.m1.name": "torch.nn.modules.module.OrderedDict"},
    "a switch of others": {"data.weights_only": False},
    "a switch inside": {"encoder.options": {"allow_pickle": True}},
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_of_no_role_is_refused_before_anything_is_built(case: str, tmp_path: Path) -> None:
    trap = {"command": ["touch", str(tmp_path / "trap")], "folder": str(tmp_path), "environment": {}}
    changes = {
        k: v | trap if isinstance(v, dict) and "_wait" in str(v) else v for k, v in WRONG[case].items()
    }
    changed = config(changes)
    with pytest.raises(UserError, match=r"outside the packages|here may stand|no configuration may"):
        check_classes(changed)
    place = next(iter(changes)).partition(".")[0]
    if case.startswith("a "):
        node = changed[place] if place in ("data", "method") else next(iter(changed[place].values()), None)
        if place in ("data", "callbacks"):
            with pytest.raises(UserError):
                construct(changed.callbacks.x if place == "callbacks" else node)
    assert not (tmp_path / "trap").exists()


class Mine(torch.nn.Module):
    pass


class Odd:
    """An argument of a class of one's own."""


def test_what_the_command_line_allows_must_have_the_role_too() -> None:
    name = "tests.config.test_build"
    with trusting(["tests"]):
        assert class_of(f"{name}.Mine", "method.fusion._target_") is Mine
        assert class_of(f"{name}.Odd", "callbacks.x.odd._target_") is Odd
        with pytest.raises(UserError, match=r"leads to the class .*Odd; here may stand an nn\.Module"):
            class_of(f"{name}.Odd", "method.fusion._target_")
        with pytest.raises(UserError, match="no class; here may stand"):
            class_of(f"{name}.config", "callbacks.x.odd._target_")
    with trusting([]), pytest.raises(UserError, match=r"allow=\[tests\] on the command line"):
        class_of(f"{name}.Mine", "method.fusion._target_")


def test_python_itself_cannot_be_allowed() -> None:
    with trusting(["os", "functools"]):
        assert len(refused({"callbacks": {"x": {"_target_": "os.system"}}})) == 1


def test_whom_the_command_line_allows() -> None:
    before = trusted()
    with trusting(allowed_by(["allow=[a,b.c]", "+allow=[d]", "seed=0", "allow=[", "study={allow: x}"])):
        assert trusted() == ("a", "b.c", "d")
    assert trusted() == before


def test_classes_in() -> None:
    node = {
        "x": [{"_target_": "a.A", "y": {"_target_": "b"}}],
        "encoder": {"name": "tiny", "m": {"name": "c.C"}},
    }
    assert list(classes_in(node)) == [
        ("x[0]._target_", "a.A"),
        ("x[0].y._target_", "b"),
        ("encoder.m.name", "c.C"),
    ]


def test_what_cannot_be_imported() -> None:
    node = OmegaConf.create({"x": {"_target_": "tests.squares.Nothing"}})
    with pytest.raises(UserError, match=r"_target_=tests\.squares\.Nothing cannot be imported: .*PYTHONPATH"):
        construct(node.x)


def test_construct_keeps_objects_and_errors() -> None:
    node = OmegaConf.create({"_target_": "mmrobust.missing.MCAR"})
    rate = {"audio": 0.5}
    assert construct(node, rate=rate).rate is rate
    with pytest.raises(TypeError, match="unexpected keyword argument 'foo'"):
        construct(node, foo=1)
    node.bar = 1
    with pytest.raises(UserError, match=r"keys of mmrobust\.missing\.MCAR do not fit: .*'bar'"):
        construct(node, rate=0)


def test_a_name_that_leads_elsewhere_is_not_called(tmp_path: Path) -> None:
    command = f"touch {tmp_path}/trap"
    node = OmegaConf.create({"_target_": "mmrobust.errors.os.system", "command": command})
    for nested in (node, OmegaConf.create({"_target_": "mmrobust.missing.MCAR", "rate": node})):
        with pytest.raises(UserError, match=r"leads to posix\.system, no class|outside the packages"):
            construct(nested)
    assert list(tmp_path.iterdir()) == []


def test_a_class_of_an_encoder_is_refused_as_a_target_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'trap')!r}, 'w')\nclass Fly: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = compose_config(["encoder.kar.name=evil.Fly"])
    with pytest.raises(
        UserError, match=r"encoder\.kar\.name=evil\.Fly is outside the packages .* allow=\[evil\]"
    ):
        construct(config.method, spec=None)
    with pytest.raises(UserError, match=r"^encoder\.kar\.name=evil\.Fly is outside the packages"):
        check_command_line(["encoder.kar.name=evil.Fly"], None, multirun=False)
    assert not (tmp_path / "trap").exists()
    with trusting(["evil"]):
        assert check_command_line(["encoder.kar.name=evil.Fly", "allow=[evil]"], None, multirun=False) == []
    assert check_command_line(["encoder.name=mobilenetv3_small_050.lamb_in1k"], None, multirun=False) == []
