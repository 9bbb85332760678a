"""From `_target_` to an object: what is built, and what is refused."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmrobust.config.build import construct
from mmrobust.config.check import check_command_line
from mmrobust.config.compose import compose_config
from mmrobust.errors import UserError


def test_what_cannot_be_imported() -> None:
    node = OmegaConf.create({"allow": ["tests"], "x": {"_target_": "tests.toys.Nothing"}})
    with pytest.raises(UserError, match=r"_target_=tests\.toys\.Nothing cannot be imported: .*PYTHONPATH"):
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
        with pytest.raises(UserError, match=r"leads to posix, outside the packages"):
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
    assert check_command_line(["encoder.kar.name=evil.Fly", "allow=[evil]"], None, multirun=False) == []
    assert check_command_line(["encoder.name=mobilenetv3_small_050.lamb_in1k"], None, multirun=False) == []
