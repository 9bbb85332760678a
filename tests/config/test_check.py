"""Checks of a command line: mistakes are all named at once, with the nearest valid names; what is right passes."""

import subprocess
import sys
from pathlib import Path

import pytest

from mmrobust.config.check import check_command_line
from mmrobust.config.compose import compose_config, conf_folder
from mmrobust.config.rules import check_config
from mmrobust.config.trust import allowed_by, trusting
from mmrobust.errors import UserError

TABLE = Path(__file__).parents[1] / "data/table.csv"  # columns id, label, rgb, audio


def problems(*overrides: str, multirun: bool = False) -> str:
    """The text of the error; empty if there is none."""
    try:
        with trusting(allowed_by(overrides)):
            check_command_line(overrides, None, multirun)
    except UserError as error:
        return str(error)
    return ""


# Mistakes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (["method=dmrnett"], ["method=dmrnett is not known; did you mean dmrnet"]),
        (["encoder=resnet19", "data=cremadd"], ["did you mean resnet18", "data=cremadd is not known; did you mean cremad?"]),
        (["fusion=nothing_like_it"], ["choose one of concat, esanet, film, gated, pyramid, sum, trunk"]),
        (["encoder@encoder.fou=resnet19"], ["did you mean resnet18"]),
        (["encoder=inherit"], ["encoder=inherit is not known"]),
        (
            ["trainer.max_epoch=3", "data.batch_sizes=3", "trainer.max_epochs=abc", "seed=1.5", "fusionn=sum"],
            [
                "there is no key trainer.max_epoch; did you mean trainer.max_epochs",
                "there is no key data.batch_sizes; did you mean data.batch_size",
                "trainer.max_epochs=abc is not a whole number",
                "seed=1.5 is not a whole number",
                "there is no key fusionn; did you mean fusion",
            ],
        ),
        (["lr=3"], ["there is no key lr; did you mean optimizer.lr?"]),
        (["data.batch_size=true", "optimizer.lr=high"], ["batch_size=True is not", "optimizer.lr=high is not a number"]),
        (["seed=-1", "data.batch_size=0"], ["seed=-1 is below 0", "data.batch_size=0 is below 1"]),
        (["method=late", "fusion=sum"], ["method=late takes no fusion; leave out fusion=sum"]),
        (["missing=mcar", "missing.train.rate=1.5"], ["missing.train.rate: rate=1.5 is not in [0, 1]"]),
        (
            ["missing=mcar", "missing.test.rate={audi: 0.3}", "data=cremad"],
            ["missing.test names the modality 'audi'; cremad has audio, visual"],
        ),
        (["missing=fixed"], ["missing.train.combination has no value yet"]),
        (["encoder=timm"], ["encoder.name has no value yet; set encoder.name=..."]),
        (["allow=[mine]", "+callbacks.x._target_=mine.X"], ["allow=[mine]: there is no module mine; if it is yours"]),
        (["+callbacks.x=[{y: '???'}]"], ["callbacks.x[0].y has no value yet"]),
        (["missing=fixed", "missing.train.combination=[m3]"], ["names the modality 'm3'; digits has fou, kar, mor"]),
        (["missing=fixed", "missing.train.combination=[m1]", "data=synthetic", "data.task=segmentation"], ["synthetic has rgb, depth"]),
        (["noise/pattern@noise.test=gaussian", "noise.test.level=12"], ["noise.test.level=12 is above 11"]),
        (["noise/pattern@noise.test=salt", "noise.test.probability=-0.1"], ["noise.test.probability=-0.1 is below 0"]),
        (["noise=udml_v2", "noise.train.start=1.5", "noise.seed=-1"], ["noise.train.start=1.5 is above 1", "noise.seed=-1 is below 0"]),
        (["noise=udml_v1", "trainer.max_epochs=-1", "trainer.max_steps=9", "schedule=constant"], ["noise.train.epochs=-1 has no share"]),
        (["noise/pattern@noise.test=udml_v1"], ["noise.test.start: a test has no epochs"]),
        (["noise=udml_v3"], ["noise=udml_v3 is not known; did you mean udml_v"]),
        (["selection=best", "seed=-1"], ["choose mean, last or paper", "seed=-1 is below 0"]),
        (["experiment=dmrnet_cremad", "method=late"], ["experiment=dmrnet_cremad fixes method=dmrnet; leave out method=late"]),
        (
            ["method=dmrnett", "trainer.max_epoch=3", "seed=1.5"],
            ["did you mean dmrnet", "trainer.max_epochs", "seed=1.5 is not a whole number"],
        ),
        (["fusionn=sum", "data.batch_size=0"], ["there is no key fusionn", "data.batch_size=0 is below 1"]),
        (["seed"], ["'seed' is not an override"]),
        (["seed=[1,2"], ["is not an override"]),
        (["encoder@encoder.m9=resnet18"], ["encoder.m9"]),
        (["~fusion"], ["fusion"]),
        (["fusion=null"], ["choose one of concat"]),
        (["experiment=null"], ["or leave it out"]),
        (["trainer.max_epochs='3'"], ["is not a whole number"]),
        (["data.batch_size=null"], ["data.batch_size"]),
        (["method=lat", "method.fused_weight=1"], ["did you mean late"]),  # whose keys nobody can judge
        (["data=cremadd", "missing=mcar", "missing.train.rate={audio: 0.1}"], ["did you mean cremad"]),
        (["allow=tests"], ["allow=tests is not a list, like [tests]"]),
        (["missing=fixed", "missing.train.combination=m1"], ["is not a list; write [m1]"]),
        (["optimizer.lr=nan"], ["optimizer.lr=nan is not a number"]),
        (["+trainer.max_epoch=1"], ["did you mean trainer.max_epochs"]),
        (["+seed=1", "data.batch_size=0"], ["+seed=1 cannot be applied", "data.batch_size=0 is below 1"]),
        (["data=manifest", "data.batch_size=0"], ["data.manifest has no value yet; set data.manifest=..."]),
        (["data=manifest", "data.manifest=no.csv", "encoder.rgb.name=x", "seed=-1"], ["data.manifest=no.csv does not exist", "seed=-1 is below 0"]),
        (["data=manifest", f"data.manifest={TABLE}", "data.columns=[rgbb]"], ["data.columns names 'rgbb', which is no modality's column; did you mean rgb?"]),
        (
            ["data=manifest", f"data.manifest={TABLE}", "encoder.rbg.name=x", "data.modalities.rgb.sise=3", "missing=mcar", "missing.train.rate={a: 0.5}"],
            [
                "there is no key encoder.rbg.name; did you mean encoder.rgb.name",
                "there is no key data.modalities.rgb.sise; did you mean data.modalities.rgb.size",
                "missing.train names the modality 'a'; manifest has rgb, audio",
            ],
        ),
        (["allow=[os]"], ["allow=[os]: no part of Python itself can be allowed"]),
    ],
    ids=str,
)  # fmt: skip
def test_mistakes_are_named(overrides: list[str], messages: list[str]) -> None:
    text = problems(*overrides)
    for message in messages:
        assert message in text
    assert len(text.splitlines()) == len(messages)


OUTSIDE = "os.system is outside the packages that may be used here"


@pytest.mark.parametrize(
    "override",
    [
        "+callbacks.x._target_=os.system",
        "+callbacks.x={_target_: os.system}",
        "+callbacks.x=[{y: {_target_: os.system}}]",
        "optimizer._target_=os.system",
        "++schedule._target_=os.system",
        "+callbacks.x={_target_: os.system} ++allow=[os]",
        "+callbacks.x._target_=torch.hub.os.system",
    ],
)  # fmt: skip
def test_targets_are_of_known_packages(override: str) -> None:
    text = problems(*override.split(" ++"))
    assert OUTSIDE in text


def test_a_file_cannot_say_whom_you_trust() -> None:
    config = compose_config([])
    config.allow = ["evil"]
    words = "allow=[evil] is set by a file; whom you trust is for the command line to say"
    with trusting([]):
        assert words in check_config(config)
    with trusting(["evil"]):
        assert words not in check_config(config)


def test_a_prefix_is_a_whole_package() -> None:
    targets = {"x": "torchfoo.X", "y": "minimal.X", "z": "mini.X"}
    text = problems(
        "allow=[mini]", *(f"+callbacks.{name}._target_={target}" for name, target in targets.items())
    )
    assert [f"{name}._target_" in text for name in targets] == [True, True, False]


# What is right


@pytest.mark.parametrize(
    "line",
    [
        "",
        "data=synthetic encoder@encoder.m1=resnet18 fusion=gated fusion.width=32",
        "data=avmnist encoder@encoder.image=resnet18 encoder.audio.name=resnet18 encoder.audio.pretrained=true",
        "data=cremad missing/pattern@missing.test=fixed missing.test.combination=[audio]",
        "noise=udml_v1 noise.train.as_released.wrap_negative=true noise/pattern@noise.test=salt noise.test.level=2.5",
        "noise/pattern@noise.test=udml_v2 noise.test.start=0 noise=udml_v2 noise.train.epochs=5 noise.seed=3",
        "missing=mcar missing.train.rate=0.5|missing.test.rate={fou: 0.2, mor: 0}",
        "+callbacks.es={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val}",
        "data=synthetic data.num_modalities=3 data.kinds=[vector,video] data.clarity=0.5 method.hard=[m3]",
        "hydra.verbose=true trainer=cpu trainer.devices=2 trainer.precision=16 seed=3 data.seed=1",
        "trainer.devices=[0,1] trainer.limit_train_batches=0.5 trainer.limit_val_batches=5 logger=both",
        "optimizer=sgd optimizer.lr=1 +optimizer.dampening=0.1 schedule=onecycle ++trainer.max_epochs=3",
        "method=late method.fused_weight=1 logger=none paths.outputs=/tmp/x|paths.run='my run' ~callbacks",
        "encoder@encoder.audio=resnet18 data=cremad trainer.gradient_clip_val=1 trainer.max_epochs=-1 trainer.max_steps=9 schedule=constant",
        "experiment=dmrnet_cremad method.as_released.batch_means=true data=cremad trainer.max_time=00:01:00:00",
        "encoder=timm encoder.name=convnext_atto",
        "paths.run=${paths.outputs}/x",
        "paths.outputs='runs_(1)'",
        "trainer.fast_dev_run=2",
        f"data=manifest data.manifest={TABLE} encoder.rgb.name=resnet18 encoder@encoder.audio=resnet18",
        f"data=manifest data.manifest={TABLE} data.columns=[rgb] data.modalities.rgb.size=[64,32] missing=mcar "
        "missing.train.rate=0.5",
    ],
)  # fmt: skip
def test_what_is_right_passes(line: str) -> None:
    """Words are separated by spaces, or by | where one holds a space."""
    words = [word for part in line.split("|") for word in _words(part)]
    assert problems(*words) == ""


def _words(text: str) -> list[str]:
    """Split at spaces outside of braces and quotes."""
    words, depth, word = [], 0, ""
    for letter in text:
        quoted = word.count("'") % 2
        depth += (letter in "{[") - (letter in "]}")
        if letter == " " and not depth and not quoted:
            words.append(word)
            word = ""
        else:
            word += letter
    return [w for w in [*words, word] if w]


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [p for p in sorted(conf_folder().glob("*/*.yaml")) if p.stem != "inherit"], ids=lambda p: f"{p.parent.name}={p.stem}"
)  # fmt: skip
def test_every_choice_passes(path: Path) -> None:
    to_be_set = {
        "fixed": ["missing.train.combination=[mor]"],
        "timm": ["encoder.name=resnet18"],
        "manifest": [f"data.manifest={TABLE}"],
        "multiview": ["data.file=set.mat"],
    }.get(path.stem, [])
    of_sweeps = path.parent.name == "sweep"
    assert problems(f"{path.parent.name}={path.stem}", *to_be_set, multirun=of_sweeps) == ""


# Sweeps


def test_a_sweep_needs_m() -> None:
    text = problems("seed=0,1", "method=late,dmrnet")
    assert text.splitlines() == [
        "- 'seed=0,1' lists several values; add -m to run each of them",
        "- 'method=late,dmrnet' lists several values; add -m to run each of them",
    ]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed=0,1", "method=late,dmrnet", "missing=mcar", "missing.train.rate=0,0.3"], ""),
        (["method=dmrnet,dropot"], "method=dropot is not known; did you mean dropout?"),
        (["optimizer.lr=1,abc"], "optimizer.lr=abc is not a number (default: 0.001)"),
        (["trainer.max_epochs=1,0"], "trainer.max_epochs=0 is below 1"),
        (
            [
                "data=manifest",
                f"data.manifest={TABLE}",
                "data.columns=[rgb],[rgb,audio]",
                "encoder.rgb.width=8,16",
            ],
            "",
        ),
        (
            ["data=manifest", f"data.manifest={TABLE},no.csv"],
            f"data.manifest=no.csv does not exist; name your CSV: data.manifest=my.csv (here: {Path.cwd()})",
        ),
        (["fusion=sum", "method=dmrnet,late"], "method=late takes no fusion; leave out fusion=sum"),
    ],
    ids=str,
)
def test_every_job_of_a_sweep_is_checked(overrides: list[str], message: str) -> None:
    assert problems(*overrides, multirun=True) == message


@pytest.mark.slow
def test_checking_imports_no_torch() -> None:
    code = (
        "import sys, mmrobust.run\n"
        "if 'numpy' in sys.modules: sys.exit(2)\n"  # a sixth of a second
        "import mmrobust.report, mmrobust.evaluate\n"
        "from mmrobust.config.check import check_command_line\n"
        "check_command_line(['seed=1', 'method=late'], None, False)\n"
        "sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# A folder of the user's


def test_a_folder_of_further_configurations(tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "mine.yaml").write_text(
        "_target_: torch.optim.Adagrad\n_partial_: true\nlr: 0.5\n"
    )
    check_command_line(["optimizer=mine", "optimizer.lr=1"], str(tmp_path), False)
    assert compose_config(["optimizer=mine"], str(tmp_path)).optimizer.lr == 0.5
    with pytest.raises(UserError, match="optimizer=mine is not known"):
        check_command_line(["optimizer=mine"], None, False)
    with pytest.raises(UserError, match=r"--config-dir .*: no such folder"):
        check_command_line([], str(tmp_path / "nowhere"), False)


NUMBERS = {
    "+optimizer.x=nan": "optimizer.x=nan is not a number",
    "seed=99999999999999999999": "seed=99999999999999999999 is above 9223372036854775807",
    "trainer.log_every_n_steps=0": "trainer.log_every_n_steps=0 is below 1",
    "paths.outputs=null": "paths.outputs names no folder",
    "paths.run=''": "paths.run names no folder",
}


@pytest.mark.parametrize("override", NUMBERS)
def test_numbers_that_cannot_be(override: str) -> None:
    assert NUMBERS[override] in problems(override)


def test_how_to_quote_is_said() -> None:
    assert """for a text write 'encoder.name="a{b"'""" in problems("encoder.name=a{b")
    assert """or quote one that has a comma: 'encoder.name="a,b"'""" in problems("encoder.name=a,b")
