"""The command: what it is told, what it refuses, and that an interrupted one goes on."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import mmrobust
from mmrobust.errors import UserError
from mmrobust.evaluation.results import read_results, write_results
from mmrobust.export import main as export
from mmrobust.methods.dropout import ModalityDropout
from mmrobust.predict.__main__ import main
from tests.data.manifest_tree import make_manifest, write_table
from tests.predict import runs


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cats")
    runs.classification(folder)
    return folder


def vectors(root: Path, folder: Path, count: int, broken: tuple[int, ...] = ()) -> Path:
    """A table of so many vectors; the broken ones are not there."""
    (folder / "v").mkdir(parents=True, exist_ok=True)
    for i in range(count):
        if i not in broken:
            shutil.copy(root / f"data/vector/{i % 12}.npy", folder / f"v/{i}.npy")
    return write_table(folder / "new.csv", [{"id": f"x{i}", "vector": f"v/{i}.npy"} for i in range(count)])


def test_it_imports_no_torch_before_it_is_needed() -> None:
    code = "import sys, mmrobust, mmrobust.predict.__main__, mmrobust.export; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_files_by_modality(root: Path, tmp_path: Path) -> None:
    """Of strange names: blanks, commas, a leading dash."""
    shutil.copy(root / "data/rgb/1.jpg", tmp_path / "-a, b.jpg")
    shutil.copy(root / "data/audio/1.wav", tmp_path / "a=b ü.wav")
    output = tmp_path / "-p, q.csv"
    given = [f"run={root / 'run'}", f"rgb={tmp_path}/-a, b.jpg", f"audio={tmp_path}/a=b ü.wav", "depth=null"]
    assert main([*given, f"output={output}"]) == 0
    (row,) = runs.read_csv(output)
    assert (row["id"], row["available"]) == ("-a, b", "rgb+audio")
    assert [bool(row[f"weight_{m}"]) for m in ("rgb", "depth", "audio", "vector")] == [
        True,
        False,
        True,
        False,
    ]
    assert sum(float(row[f"p_{c}"]) for c in ("cat", "dog")) == pytest.approx(1)


def test_folders_by_modality(root: Path, tmp_path: Path) -> None:
    """Files of one name are one sample; what has no partner goes alone."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "sounds").mkdir()
    for i in (1, 2, 3):
        shutil.copy(root / f"data/rgb/{i}.jpg", tmp_path / f"photos/n{i}.jpg")
    for i in (2, 3, 4):
        shutil.copy(root / f"data/audio/{i}.wav", tmp_path / f"sounds/n{i}.wav")
    given = [f"rgb={tmp_path}/photos", f"audio={tmp_path}/sounds", f"output={tmp_path}/p.csv"]
    assert main([f"run={root / 'run'}", *given, "batch_size=2", "workers=2"]) == 0
    seen = [(row["id"], row["available"]) for row in runs.read_csv(tmp_path / "p.csv")]
    assert seen == [("n1", "rgb"), ("n2", "rgb+audio"), ("n3", "rgb+audio"), ("n4", "audio")]


def test_one_bad_row_stops_nothing(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "d"
    data.mkdir()
    np.save(data / "ok.npy", np.arange(7.0))
    np.save(data / "long.npy", np.arange(9.0))
    np.save(data / "nan.npy", np.full(7, np.nan))
    (data / "empty.npy").touch()
    (data / "lfs.npy").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (data / "cut.npy").write_bytes((data / "ok.npy").read_bytes()[:150])
    (data / "page.npy").write_text("<html>not found</html>")
    (data / "folder.npy").mkdir()
    shutil.copy(root / "data/rgb/1.jpg", data / "image.jpg")
    (data / "cut.jpg").write_bytes((data / "image.jpg").read_bytes()[:300])
    cells = {
        "ok": ("ok.npy", "", ""),
        "long": ("long.npy", "", "vector: "),
        "nan": ("nan.npy", "", "NaN or infinity"),
        "zero": ("empty.npy", "", "empty.npy is empty; get it again"),
        "lfs": ("lfs.npy", "", "git-LFS pointer; run `git lfs pull`"),
        "cut": ("cut.npy", "", "cut.npy cannot be read"),
        "page": ("page.npy", "", "page.npy cannot be read"),
        "folder": ("folder.npy", "", "is a folder; name a file"),
        "absent": ("no, such.npy", "", "does not exist"),
        "other kind": ("image.jpg", "", "cannot be read as an array"),
        "jpeg": ("", "cut.jpg", "is cut short"),
        "none": ("", "", "none of rgb, depth, audio, vector is given"),
        "last": ("ok.npy", "image.jpg", ""),
    }
    table = write_table(
        data / "new.csv", [{"id": k, "vector": v, "rgb": r} for k, (v, r, _) in cells.items()]
    )
    assert main([f"run={root / 'run'}", f"data.manifest={table}", f"output={tmp_path}/p.csv"]) == 1
    rows = runs.read_csv(tmp_path / "p.csv")
    assert [row["id"] for row in rows] == list(cells)
    told = capsys.readouterr()
    for row, (_, _, words) in zip(rows, cells.values(), strict=True):
        assert words in row["error"], row
        assert bool(row["prediction"]) != bool(words)
        assert not words or f"{row['id']}: {row['error']}" in told.err
    assert rows[0]["prediction"] == rows[-1]["prediction"] or rows[-1]["available"] == "rgb+vector"
    assert "13 rows, 11 of them could not be predicted" in told.out


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["rgb"], "'rgb' is not key=value"),
        (["audoi=a.wav"], "audoi is neither a modality of this run nor a key; did you mean audio?"),
        ([], "nothing is to be predicted: give data.manifest=<csv>, or rgb=<file or folder>"),
        (["rgb=null"], "nothing is to be predicted"),
        (["rgb=a.jpg", "missing=audio"], "missing=audio is not known; write missing=drop:depth"),
        (["rgb=a.jpg", "missing=drop:nose"], "nose is neither a modality"),
        (["rgb=a.jpg", "missing=drop:rgb,depth,audio,vector"], "leaves no modality; keep at least one"),
        (["rgb=a.jpg", "batch_size=0"], "batch_size=0 is no whole number of at least 1"),
        (["rgb=a.jpg", "overlay=true"], "overlay=true is for segmentation, and this run does classification"),
        (["rgb=a.jpg", "data.manifest=a.csv"], "data.manifest and rgb are given; give one or the other"),
        (["rgb=a.jpg", "checkpoint=last"], "has no last checkpoint"),
        (["data.manifest=nowhere.csv"], "data.manifest=nowhere.csv does not exist"),
        (["rgb=a.jpg", "device=nose"], "device=nose cannot be used"),
        (["rgb=a.jpg", "rgb=b.jpg"], "rgb is given twice"),
    ],
)
def test_mistakes(
    given: list[str], words: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"run={root / 'run'}", f"output={tmp_path}/p.csv", *given]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "p.csv").exists()


def test_a_table_without_the_modalities(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "new.csv", [{"id": "a", "vectors": "x.npy"}])
    given = [f"run={root / 'run'}", f"data.manifest={table}", f"output={tmp_path}/p.csv"]
    assert main(given) == 2
    assert (
        "has no column of this run's modalities (rgb, depth, audio, vector), but id, vectors; is it vector?"
        in (" ".join(capsys.readouterr().err.split()))
    )


def test_a_run_that_is_not_complete(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(root / "run", run)
    results = read_results(run)
    (run / "results.json").unlink()
    given = [f"run={run}", "rgb=a.jpg", f"output={tmp_path}/p.csv"]
    assert main(given) == 2
    assert "is not complete: its training has not ended; go on with it: python -m mmrobust.run resume=" in (
        capsys.readouterr().err
    )
    write_results(run, results)
    (run / "checkpoints/best.ckpt").write_bytes(b"nonsense")
    assert main(given) == 2
    assert "cannot be loaded" in capsys.readouterr().err
    assert main([f"run={tmp_path}/nowhere", *given[1:]]) == 2
    assert "is not a run's folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"<html>", "it is a web page"),
        (b'\x08\0\0\0\0\0\0\0{"a": 1}', "is no run that `python -m mmrobust.export` wrote"),
        (b"\xff" * 64, "is no run that"),
    ],
)
def test_a_file_that_is_no_run(
    content: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.mmrobust").write_bytes(content)
    assert main([f"run={tmp_path}/x.mmrobust", "rgb=a.jpg", f"output={tmp_path}/p.csv"]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": {"_target_": "os.system"}}, "method._target_=os.system is outside the packages"),
        ({"data": {"root": "${oc.env:HOME}"}}, "refers to something else"),
        ({"data": None}, "its configuration lacks data"),
        ("format", "is of format 99, this version of mmrobust reads 1"),
        ("cut", "is damaged"),
        ("weights", "does not fit the method: head.weight has shape"),
    ],
)
def test_a_file_from_somebody_else(
    change: Any, words: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing in it is run, and what is wrong with it is said."""
    path = tmp_path / "x.mmrobust"
    assert export([f"run={root / 'run'}", f"output={path}"]) == 0
    with safe_open(path, "pt") as file:
        head = json.loads(file.metadata()["mmrobust"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if isinstance(change, dict):
        ((part, keys),) = change.items()
        head["config"][part] = None if keys is None else head["config"][part] | keys
    head["format"] = 99 if change == "format" else head["format"]
    if change == "weights":
        name = next(iter(tensors))
        tensors[name] = torch.zeros(1, 2, 3)
        words = f"does not fit the method: {name} has shape (1, 2, 3)"
    save_file(tensors, path, metadata={"mmrobust": json.dumps(head)})
    if change == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    assert main([f"run={path}", f"rgb={root}/data/rgb/1.jpg", f"output={tmp_path}/p.csv"]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["format=onnx"], "format=onnx is not known; choose run"),
        (["output=x.zip"], "output=x.zip must end in .mmrobust"),
        (["nose=1"], "'nose=1' is not known; possible are run=, output="),
        (["output=nowhere/x.mmrobust"], "there is no folder nowhere"),
    ],
)
def test_mistakes_of_an_export(
    given: list[str], words: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export([f"run={root / 'run'}", f"output={tmp_path}/x.mmrobust", *given]) == 2
    assert words in capsys.readouterr().err


def test_a_full_disk_is_told_and_the_rest_is_kept(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on the size of files stands for it; with room again, the same command goes on."""
    table = vectors(root, tmp_path, 60)
    given = [f"run={root / 'run'}", f"data.manifest={table}", f"output={tmp_path}/p.csv", "batch_size=4"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        assert main(given) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    assert "p.csv" in capsys.readouterr().err
    assert not (tmp_path / "p.csv").exists()
    assert main(given) == 0
    assert [row["id"] for row in runs.read_csv(tmp_path / "p.csv")] == [f"x{i}" for i in range(60)]
    assert "going on after" in capsys.readouterr().err


def test_an_interrupted_one_goes_on(root: Path, tmp_path: Path) -> None:
    """What a killed process left is kept but for a half-written line; other requests do not touch it."""
    table = vectors(root, tmp_path, 23, broken=(5,))
    given = [f"run={root / 'run'}", f"data.manifest={table}", f"output={tmp_path}/p.csv", "batch_size=4"]
    assert main(given) == 1
    whole = (tmp_path / "p.csv").read_text()
    lines = whole.splitlines(keepends=True)
    for cut in (0, 1, 3, 7, 24):
        (tmp_path / "p.csv").unlink()
        part = tmp_path / f"p.csv.{identity_of(given)}.part"
        part.write_text("".join(lines[:cut]) + (lines[cut][:9] if cut < len(lines) else ""))
        assert main(given) == 1
        assert (tmp_path / "p.csv").read_text() == whole
        assert not part.exists()
    part.write_text("".join(lines[:3]))
    assert main([*given, "missing=drop:rgb"]) == 1
    assert part.exists()


def identity_of(given: list[str]) -> str:
    from mmrobust.predict.request import parse
    from mmrobust.predict.stream import identity

    return identity(parse(given))


def test_killed(root: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of it: the same command ends in the table of an uninterrupted one."""
    table = vectors(root, tmp_path, 12)
    rows = [f"y{i},v/{i % 12}.npy" for i in range(30_000)]
    table.write_text("id,vector\n" + "\n".join(rows) + "\n")
    given = [f"run={root / 'run'}", f"data.manifest={table}", f"output={tmp_path}/p.csv"]
    command = [sys.executable, "-m", "mmrobust.predict", *given]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    while process.poll() is None and not any(p.stat().st_size > 9000 for p in tmp_path.glob("*.part")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "p.csv").exists()
    assert main(given) == 0
    seen = runs.read_csv(tmp_path / "p.csv")
    assert [row["id"] for row in seen] == [f"y{i}" for i in range(30_000)]
    assert all(row["prediction"] and not row["error"] for row in seen)


class OnlyTogether(ModalityDropout):
    """A method that cannot do without any of its modalities."""

    def combinations(self) -> list[tuple[str, ...]]:
        return [self.modalities]


def test_a_combination_that_the_method_does_not_serve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = make_manifest(tmp_path / "data", 12)
    own = ["method=dropout", f"method._target_={__name__}.OnlyTogether", "allow=[tests]"]
    runs.train(tmp_path / "run", f"data.manifest={table}", "data.columns=[sequence,vector]", *own)
    given = [f"run={tmp_path}/run", f"data.manifest={table}", f"output={tmp_path}/p.csv"]
    assert main([*given, "allow=[tests]"]) == 0
    assert main([*given, "allow=[tests]", "missing=drop:vector"]) == 1
    words = "the method cannot predict from sequence; it serves 1 (sequence+vector)"
    assert all(row["error"] == words for row in runs.read_csv(tmp_path / "p.csv"))
    with pytest.raises(UserError, match=re.escape(words)):
        mmrobust.load(tmp_path / "run", allow=["tests"]).predict(
            {"sequence": tmp_path / "data/sequence/1.npy"}
        )
    capsys.readouterr()
    assert main(given) == 2
    assert "is outside the packages that may be used here" in capsys.readouterr().err


def test_what_python_is_given_wrongly(root: Path) -> None:
    model, data = mmrobust.load(root / "run", device="cpu"), root / "data"
    assert model.modalities == ("rgb", "depth", "audio", "vector")
    assert (model.classes, model.task, len(model.combinations)) == (("cat", "dog"), "classification", 15)
    for sample, words in {
        (("rgbb", "a.jpg"),): "rgbb is no modality of this run; did you mean rgb?",
        (("rgb", None),): "none of rgb, depth, audio, vector is given",
        (("vector", (1.0, 2.0)),): "vector: what was given has shape (2,), where (7,) was expected",
        (("audio", (1j, 2j, 3j)),): "audio: the sound is tuple (3,) of complex128",
        (("rgb", data / "nowhere.jpg"),): "rgb: ",
        (("audio", data / "rgb/1.jpg"),): "cannot be read as sound",
    }.items():
        with pytest.raises(UserError, match=re.escape(words)):
            model.predict(dict(sample))
    with pytest.raises(UserError, match="sample b: none of"):
        model.predict([{"rgb": data / "rgb/1.jpg"}, {"id": "b"}])
    for nonsense in ("a.jpg", 3, [3]):
        with pytest.raises(UserError, match="give a dict by modality"):
            model.predict(nonsense)
    assert model.predict([]) == []
