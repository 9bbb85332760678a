"""Every fault, through the command's `main`: what was found, what was expected, what to do; no traceback; status 2."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from mmrobust import evaluate
from mmrobust.data.spec import DataSpec
from mmrobust.data.split import Key, Split
from mmrobust.errors import UserError
from mmrobust.evaluation.results import read_predictions, read_results
from mmrobust.methods.fusion import Fusion
from mmrobust.run import main
from mmrobust.training import checkpoints
from tests.data.trees import TREES
from tests.squares import CONF, Squares, SquaresSplit

SMALL = [
    "encoder.width=8",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "data.batch_size=8",
    "data.workers=0",
    "allow=[tests]",
    "keep=all",
]
SYNTHETIC = [
    *SMALL,
    "method=fusion",
    "data=synthetic",
    "data.num_train=32",
    "data.num_val=16",
    "data.num_test=16",
]
CREMAD = [
    *SMALL,
    "method=fusion",
    "data=cremad",
    "data.image_size=32",
    "data.seconds=0.5",
    "data.validation=0.25",
]
SQUARES = ["--config-dir", CONF, *SMALL, "data=squares", "method=fusion"]
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@dataclass
class Told:
    status: int
    text: str  # everything printed


Run = Callable[..., Told]


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `main` with outputs in tmp_path/out."""
    monkeypatch.delenv("MMROBUST_TRACEBACK", raising=False)

    def call(*argv: str, command: Callable[[list[str]], int] = main) -> Told:
        own = any(text.startswith(("resume=", "run=", "paths.")) for text in argv)
        status = command([*argv] if own else [*argv, f"paths.outputs={tmp_path}/out"])
        printed = capfd.readouterr()
        return Told(status, printed.out + printed.err)

    return call


def refused(told: Told, *words: str) -> None:
    assert told.status == 2, told.text
    for word in words:
        assert word in told.text, told.text
    assert "Traceback" not in told.text


class OnlyClassification(Fusion):
    tasks = ("classification",)


class Holes(Squares):
    """Its sample 3 has no modality."""

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        spec, splits = super().load()
        splits["val"].present[3] = False
        return spec, splits


class Twice(Squares):
    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        spec, splits = super().load()
        splits["test"].ids = [*splits["test"].ids[:-1], "train 5"]
        return spec, splits


class Infinite(Squares):
    """Its sample 5 to validate has an infinite pixel."""

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        spec, splits = super().load()
        return spec, splits | {"val": InfiniteSquares("val", self)}


class InfiniteSquares(SquaresSplit):
    def read(self, key: Key) -> dict[str, np.ndarray]:
        raw = super().read(key)
        raw["m2"][0, 0, 0] = np.inf if key.index == 5 else 0
        return raw


class BadWeights(Callback):
    """The test begins with a weight that is no number."""

    def on_test_start(self, trainer: Trainer, method: Any) -> None:
        with torch.no_grad():
            next(method.parameters()).fill_(float("nan"))


class Bug(Callback):
    def on_train_start(self, *_: Any) -> None:
        raise RuntimeError("a bug")


# The command line

COMMANDS = {
    "unknown method": (["method=dmrnett"], ["method=dmrnett is not known; did you mean dmrnet"]),
    "unknown dataset": (["data=cremadd"], ["did you mean cremad?"]),
    "unknown encoder": (["encoder=resnet81"], ["did you mean resnet18"]),
    "unknown key": (["data.batchsize=8"], ["there is no key data.batchsize; did you mean data.batch_size"]),
    "unknown key of a class": (["+method.kl=1"], ["the keys of mmrobust.methods.fusion.Fusion do not fit", "'kl'"]),
    "unknown key of the optimizer": (["+optimizer.betta=1"], ["optimizer: ", "does not take these keys", "'betta'"]),
    "wrong type": (["data.batch_size=many"], ["data.batch_size=many is not a whole number (default: 64)"]),
    "rate": (["missing=mcar", "missing.train.rate=1.5"], ["missing.train.rate: rate=1.5 is not in [0, 1]"]),
    "combination": (["missing=fixed", "missing.train.combination=[m1,video]"], ["names the modality 'video'; synthetic has m1, m2"]),
    "several at once": (["methd=late", "seed=x", "data.size=0.5"], ["no key methd", "seed=x is not", "data.size=0.5 is not"]),
    "more GPUs than there are": (["trainer.accelerator=gpu", "trainer.devices=99"], ["trainer.devices=99, but this machine has", "trainer.accelerator=cpu"]),
    "unknown accelerator": (["trainer.accelerator=tpuu"], ["trainer: ", "accelerator", "see conf/trainer/auto.yaml"]),
    "batch too large": (["data.batch_size=33"], ["32 samples, fewer than data.batch_size=33; set data.batch_size to at most 32"]),
    "foreign target": (["+callbacks.x._target_=evil.fly"], ["outside the packages that may be used", "if you trust it: allow=[evil] on the command line"]),
    "code behind a target": (["+callbacks.x={_target_: mmrobust.run.os.system, command: 'touch trap'}"], ["callbacks.x._target_=mmrobust.run.os.system leads to posix.system, no class"]),
    "no step": (["trainer.max_steps=0"], ["trainer.max_steps=0 trains nothing; set it to at least 1, or to -1"]),
    "no batch": (["trainer.limit_train_batches=0"], ["trainer.limit_train_batches=0 leaves nothing to train on"]),
    "no time": (["trainer.max_time=00:00:00:00"], ["training took not one step", "trainer.max_time"]),
    "too many combinations": (["data.num_modalities=16"], ["synthetic has 16 modalities, that is 65535 combinations, more than max_combinations=4095; take fewer"]),
    "far too many combinations": (["data.num_modalities=99999999999"], ["data.num_modalities=99999999999 is above 62"]),
    "fewer combinations allowed": (["data.num_modalities=3", "max_combinations=6"], ["that is 7 combinations, more than max_combinations=6"]),
    "NaN": (["optimizer.weight_decay=nan"], ["error: optimizer.weight_decay=nan is not a number"]),
    "refused by the optimizer": (["+optimizer.eps=-1"], ["error: optimizer: Invalid epsilon value: -1; see conf/optimizer/"]),
    "out of its range": (["optimizer.weight_decay=-1"], ["error: optimizer.weight_decay=-1 is below 0"]),
    "no last epoch": (["trainer.max_epochs=-1", "trainer.max_steps=4"], ["error: schedule.T_max is trainer.max_epochs=-1, which is no length; set"]),
    "no device": (["trainer.devices=0"], ["error: trainer.devices=0 is no number of devices; take 1 or more"]),
    "no end": (["trainer.max_epochs=-1", "schedule=constant"], ["error: trainer.max_epochs=-1 never ends; set trainer.max_steps"]),
    "a seed too large": (["seed=99999999999999999999"], ["error: seed=99999999999999999999 is above 9223372036854775807"]),
    "a step too small": (["trainer.log_every_n_steps=0"], ["error: trainer.log_every_n_steps=0 is below 1"]),
    "no schedule": (["schedule.T_max=0"], ["error: schedule.T_max=0 is below 1"]),
    "no width": (["encoder.width=0"], ["error: encoder.width=0 is below 1"]),
    "too many workers": (["data.workers=99999999999999"], ["error: data.workers=99999999999999 is above 256"]),
    "too many classes": (["data.num_classes=99999999999999"], ["error: data.num_classes=99999999999999 is above 10000"]),
    "too many samples": (["data.num_train=99999999999999"], ["error: there is not enough memory: Unable to allocate", "smaller"]),
    "corrupt": (["data.corrupt=ignore"], ["data.corrupt=ignore is not known; choose error or skip"]),
}  # fmt: skip


@pytest.mark.parametrize("fault", COMMANDS)
def test_command_line(fault: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    overrides, words = COMMANDS[fault]
    refused(run(*SYNTHETIC, *overrides), *words)
    assert not (tmp_path / "trap").exists()
    assert not list(tmp_path.glob("**/results.json"))
    assert not list(tmp_path.glob("**/predictions.npz"))


def test_task_that_the_method_cannot_do(run: Run) -> None:
    told = run(*SQUARES, "method._target_=tests.test_bad_input.OnlyClassification")
    refused(told, "OnlyClassification does classification, but the dataset's task is segmentation")


def test_sample_without_modalities_and_ids_in_two_splits(run: Run) -> None:
    told = run(*SQUARES, "data._target_=tests.test_bad_input.Holes")
    refused(told, "sample 'val 3' of split 'val' has no modality at all; leave it out")
    told = run(*SQUARES, "data._target_=tests.test_bad_input.Twice")
    refused(told, "sample 'train 5' of split 'test' is also in 'train'")


def test_an_input_that_is_no_number_in_any_dataset(run: Run, tmp_path: Path) -> None:
    given = [*SQUARES, "data._target_=tests.test_bad_input.Infinite"]
    refused(run(*given), "sample val 5: its m2 holds NaN or infinity; mend it or leave it out, or", SKIP)
    told = run(*given, SKIP)
    assert told.status == 0, told.text
    assert read_results(next(tmp_path.glob("out/*/*/results.json")))["protocol"]["skipped"] == {
        "val": ["val 5"]
    }


def test_predictions_that_are_no_numbers(run: Run, tmp_path: Path) -> None:
    bad = "+callbacks.bad._target_=tests.test_bad_input.BadWeights"
    told = run(*SYNTHETIC, "selection=last", bad, f"paths.run={tmp_path}/run")
    refused(told, "the network's logits are NaN or infinite for 16 samples: test0, ", "lower optimizer.lr")
    assert read_results(tmp_path / "run")["status"] == "diverged"


def test_traceback_on_request(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMROBUST_TRACEBACK", "")
    told = run("--traceback", "method=dmrnett")
    assert told.status == 2
    assert "Traceback" in told.text
    monkeypatch.setenv("MMROBUST_TRACEBACK", "1")
    assert "Traceback" in run("method=dmrnett").text


def test_a_bug_keeps_its_traceback(run: Run) -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        run(*SYNTHETIC, "+callbacks.bug._target_=tests.test_bad_input.Bug")


# Files of the data


@pytest.fixture(scope="module")
def cremad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "cremad"
    TREES["cremad"](root)
    return root


@pytest.fixture
def tree(cremad: Path, tmp_path: Path) -> Path:
    return shutil.copytree(cremad, tmp_path / "cremad")


def clip(tree: Path, number: int = 0) -> tuple[str, Path, Path]:
    """A clip of the test list: id, sound, first frame."""
    stem = (tree / "test.csv").read_text().splitlines()[number].partition(",")[0]
    return stem, tree / f"AudioWAV/{stem}.wav", tree / f"Image-01-FPS/{stem}/00000.jpg"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def repeat(path: Path) -> None:
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")


def no_numbers(tree: Path, split: str) -> None:
    stem = (tree / f"{split}.csv").read_text().splitlines()[0].partition(",")[0]
    soundfile.write(tree / f"AudioWAV/{stem}.wav", np.full(16000, np.nan), 16000, subtype="FLOAT")


SKIP = "data.corrupt=skip"
DAMAGE: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "missing root": (shutil.rmtree, ["cremad does not exist; set it, or paths.data"]),
    "missing CSV": (lambda t: (t / "test.csv").unlink(), ["test.csv; take it from", "data.split=actor"]),
    "missing wav": (lambda t: clip(t)[1].unlink(), ["no <id>.wav in", "1 (1001_IOM_NEU_XX)", SKIP]),
    "missing frame folder": (lambda t: shutil.rmtree(clip(t)[2].parent), ["no <id>/*.jpg in", "mmrobust.prepare", SKIP]),
    "git-LFS pointer": (lambda t: clip(t)[1].write_bytes(LFS), ["git-LFS pointer", "run `git lfs pull`", SKIP]),
    "truncated wav": (lambda t: cut(clip(t)[1]), ["sample 1001_IOM_NEU_XX: ", ".wav is cut short: ", "get the file again", SKIP]),
    "NaN in a wav of test": (lambda t: no_numbers(t, "test"), ["sample 1001_IOM_NEU_XX: ", ".wav holds NaN or infinity", SKIP]),
    "NaN in a wav of train": (lambda t: no_numbers(t, "train"), ["sample 1001_IEO_NEU_XX: ", ".wav holds NaN or infinity", SKIP]),
    "truncated jpg": (lambda t: cut(clip(t)[2]), ["sample 1001_IOM_NEU_XX: ", ".jpg is cut short after", SKIP]),
    "no image": (lambda t: clip(t)[2].write_text("<html>"), ["cannot be read as an image", SKIP]),
    "duplicate ids": (lambda t: repeat(t / "train.csv"), ["train.csv: listed before: 1 (line 49: 1001_IEO_NEU_XX); keep one row of each"]),
    "clip in train and test": (lambda t: (t / "test.csv").write_text("1001_IEO_NEU_XX,NEU\n"), ["in train.csv and test.csv: 1 (1001_IEO_NEU_XX); take them out of one"]),
}  # fmt: skip


@pytest.mark.parametrize("fault", DAMAGE)
def test_damaged_data(fault: str, run: Run, tree: Path) -> None:
    damage, words = DAMAGE[fault]
    damage(tree)
    refused(run(*CREMAD, f"data.root={tree}", "data.frames=2"), *words)


def test_damage_found_by_a_worker_is_one_message(run: Run, tree: Path) -> None:
    cut(clip(tree)[1])
    told = run(*CREMAD, f"data.root={tree}", "data.workers=2")
    refused(told, "sample 1001_IOM_NEU_XX: ", "is cut short", SKIP)
    assert told.text.count("is cut short") == 1


@pytest.mark.slow
def test_damaged_samples_are_skipped_and_counted(run: Run, tree: Path, tmp_path: Path) -> None:
    cut(clip(tree)[1])
    clip(tree, 1)[1].write_bytes(LFS)
    cut(clip(tree, 2)[2])
    no_numbers(tree, "train")
    shutil.rmtree(clip(tree, 3)[2].parent)
    told = run(*CREMAD, f"data.root={tree}", "data.frames=2", SKIP)
    assert told.status == 0, told.text
    results = read_results(next(tmp_path.glob("out/*/*")))
    assert results["protocol"]["skipped"] == {
        "test": sorted(clip(tree, n)[0] for n in range(4)),
        "train": ["1001_IEO_NEU_XX"],
    }
    assert results["combinations"]["audio"]["n"] == 24 - 4
    log = next(tmp_path.glob("out/*/*/log.txt")).read_text()
    assert "leaves out sample 1001_IOM_NEU_XX of split test: " in log
    shutil.rmtree(tree / "AudioWAV")
    refused(run(*CREMAD, f"data.root={tree}", SKIP), "no sample of split 'train' can be read; the first one")


@pytest.mark.slow
def test_unusual_sounds_just_work(run: Run, tree: Path) -> None:
    rng = np.random.default_rng(0)
    waves = {0: (np.zeros(16000), 16000), 1: (rng.normal(size=(1600, 2)) / 9, 16000), 2: (np.ones(800), 8000)}
    for number, (wave, rate) in waves.items():
        soundfile.write(clip(tree, number)[1], wave, rate)
    assert run(*CREMAD, f"data.root={tree}").status == 0


@pytest.mark.slow
def test_damaged_recordings(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "avmnist"
    given = [*SMALL, "method=fusion", "data=avmnist", f"data.root={root}", "data.download=false"]
    refused(run(*given), "lacks train-images-idx3-ubyte", "get (of the zip file")
    TREES["avmnist"](root)
    sound = root / "free-spoken-digit-dataset/recordings/3_theo_7.wav"
    cut(sound)
    refused(run(*given), "3_theo_7.wav is cut short", SKIP)
    assert run(*given, SKIP, "data.fixed_images=1").status == 0
    (made,) = tmp_path.glob("out/*/*/results.json")
    assert read_results(made)["protocol"]["skipped"] == {"recordings": ["3_theo_7"]}
    labels = root / "MNIST/raw/train-labels-idx1-ubyte"
    cut(labels)
    refused(run(*given, SKIP), "train-labels-idx1-ubyte holds", "let data.download=true fetch it again")


@pytest.mark.slow
def test_a_batch_of_one(run: Run) -> None:
    """BatchNorm in evaluation uses running statistics, whatever is left for the last batch; in training, a
    single row does, too."""
    last = ["data.num_val=17", "data.num_test=9", "encoder=tiny", "encoder.norm=batch"]
    assert run(*SYNTHETIC, *last).status == 0
    assert run(*SYNTHETIC, *last, "data.batch_size=1", "data.num_train=4", "data.kinds=[vector]").status == 0


@pytest.mark.slow
def test_spaces_and_other_alphabets(run: Run, cremad: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Läufe von 漢字 (1)"
    root = shutil.copytree(cremad, folder / "Dätä 音声")
    conf = folder / "conf é/optimizer"
    conf.mkdir(parents=True)
    (conf / "mine.yaml").write_text("_target_: torch.optim.SGD\n_partial_: true\nlr: 0.1\n")
    given = ["--config-dir", str(conf.parent), *CREMAD, "optimizer=mine", f"data.root={root}"]
    told = run(*given, f"paths.outputs={folder}/out")
    assert told.status == 0, told.text
    (made,) = folder.glob("out/*/*")
    assert f"resume={made}" not in told.text
    assert run(f"resume={made}").status == 0
    assert run(f"run={made}", f"data.root={root}", command=evaluate.main).status == 0


# Checkpoints


class Malicious:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("trap"),)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main([*SYNTHETIC, f"paths.run={folder}"]) == 0
    return folder


@pytest.fixture
def interrupted(trained: Path, tmp_path: Path) -> Path:
    """A run whose training is done and whose result is not; its last checkpoint."""
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / "results.json").unlink()
    return folder / "checkpoints/last.ckpt"


BYTES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda b: b"", "(0 bytes) cannot be loaded: it is empty"),
    "truncated": (lambda b: b[:-1000], "cannot be loaded: it is cut short"),
    "HTML": (
        lambda b: b"<!DOCTYPE html><html>404</html>",
        "cannot be loaded: it is a web page",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", BYTES)
def test_damaged_checkpoint(fault: str, run: Run, interrupted: Path, tmp_path: Path) -> None:
    path, (change, words) = interrupted, BYTES[fault]
    path.write_bytes(change(path.read_bytes()))
    refused(run(f"resume={tmp_path}/run"), str(path), words, "train again")
    assert (path.parent / "best.ckpt").is_file()


@pytest.mark.slow
def test_foreign_checkpoints(
    run: Run, interrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, whole = interrupted, interrupted.read_bytes()
    torch.save({"weights": torch.zeros(3)}, path)
    refused(run(f"resume={tmp_path}/run"), "is not one of mmrobust's", "take one that")
    torch.save(torch.load(path) | {"state_dict": {}, "extra": Malicious()}, path)
    refused(run(f"resume={tmp_path}/run"), "more than tensors and plain values, which is refused")
    assert not (tmp_path / "trap").exists()
    path.write_bytes(whole)
    assert run(f"resume={tmp_path}/run").status == 0


OTHERS = {
    "method": ("method=late", "late.LateFusion, not of mmrobust.methods.fusion.Fusion"),
    "dataset": ("data.num_modalities=3", "trained with modalities"),
    "class count": ("data.num_classes=5", "trained with num_classes 5, the data has 8"),
    "width": ("encoder.width=16", "has shape (4, 1, 5, 5) instead of (2, 1, 5, 5)"),
}


@pytest.mark.slow
@pytest.mark.parametrize("other", OTHERS)
def test_checkpoint_of_another(other: str, run: Run, interrupted: Path, tmp_path: Path) -> None:
    override, words = OTHERS[other]
    assert run(*SYNTHETIC, override, f"paths.run={tmp_path}/other").status == 0
    shutil.copy(tmp_path / "other/checkpoints/last.ckpt", interrupted)
    refused(run(f"resume={tmp_path}/run"), str(interrupted), words, "take a checkpoint of this run")


@pytest.mark.usefixtures("interrupted")
def test_resume_with_changed_options(run: Run, tmp_path: Path) -> None:
    told = run(f"resume={tmp_path}/run", "optimizer.lr=1")
    refused(told, "optimizer.lr would make another run", "start a new run without resume")
    refused(run(f"resume={tmp_path}/nowhere"), "is not a run's folder")


def test_loss_that_is_no_number(run: Run, tmp_path: Path) -> None:
    bad = "+callbacks.bad={_target_: tests.faults.BadLoss, step: 5}"
    told = run(*SYNTHETIC, "trainer.max_epochs=3", bad, f"paths.run={tmp_path}/run")
    last = tmp_path / "run/checkpoints/last.ckpt"
    refused(
        told,
        "the loss is no number at step 5: task = ",
        "samples were train",
        f"last good checkpoint is {last}",
    )
    assert torch.load(last, weights_only=True)["steps"] == 4
    assert all(x.isfinite().all() for x in torch.load(last, weights_only=True)["state_dict"].values())


class FullDisk(Callback):
    """Fills the disk from the second epoch on, until `os.fsync` is what it was."""

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.current_epoch == 1:

            def full(file: int) -> None:
                raise OSError(28, "No space left on device")

            checkpoints.os.fsync = full  # type: ignore[attr-defined]


@pytest.mark.slow
def test_full_disk(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints.os, "fsync", checkpoints.os.fsync)  # type: ignore[attr-defined]
    full = "+callbacks.full._target_=tests.test_bad_input.FullDisk"
    told = run(*SYNTHETIC, "trainer.max_epochs=2", full, f"paths.run={tmp_path}/run")
    words = ["cannot be written: [Errno 28] No space left on device", "Make room", f"resume={tmp_path}/run"]
    refused(told, *words, "the one before is untouched")
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["steps"] == 4
    assert not list(tmp_path.glob("**/*.part"))
    monkeypatch.undo()
    monkeypatch.setattr(FullDisk, "on_train_epoch_start", lambda *_: None)
    assert run(f"resume={tmp_path}/run", "allow=[tests]").status == 0


def test_folder_that_cannot_be_written(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    refused(
        run(*SYNTHETIC, f"paths.outputs={tmp_path}/file"), "file", "choose another folder with paths.outputs"
    )

    def read_only(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", "run/checkpoints/best.ckpt.part")

    monkeypatch.setattr(checkpoints.torch, "save", read_only)  # type: ignore[attr-defined]
    refused(run(*SYNTHETIC), "cannot be written: [Errno 13] Permission denied", "none was there before")


def test_predictions_hold_no_pickle(
    run: Run, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = shutil.copytree(trained, tmp_path / "run") / "predictions.npz"
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["logits"].dtype == np.float32
    for change in (lambda: np.savez(path, logits=np.array([Malicious()])), lambda: cut(path)):
        change()
        with pytest.raises(UserError, match=r"predictions\.npz cannot be read"):
            read_predictions(path)
        refused(run(f"run={tmp_path}/run", "verify=true", command=evaluate.main), "evaluate the run again")
    assert not (tmp_path / "trap").exists()
