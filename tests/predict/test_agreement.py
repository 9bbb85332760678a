"""What the command line and Python say of files is what the run's own test said, with every combination."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mmrobust
from mmrobust.combinations import all_combinations, combination_name
from mmrobust.data.files.images import read_indices
from mmrobust.evaluation.results import read_predictions
from mmrobust.tasks.counts import confusion_counts
from tests.predict import runs


@pytest.fixture(scope="module")
def cats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cats")
    runs.classification(root)
    return root


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stripes")
    runs.segmentation(root)
    return root


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("said")
    runs.sentences(root)
    return root


def files_of(
    rows: list[dict[str, str]], folder: Path, modalities: tuple[str, ...], texts: str = ""
) -> list[dict]:
    """As a program would name them."""
    return [
        {m: (row[m] if m == texts else folder / row[m]) if row[m] else None for m in modalities}
        for row in rows
    ]


@pytest.mark.parametrize(("root", "table", "texts"), [("cats", "my.csv", ""), ("said", "said.csv", "said")])
def test_classes(root: str, table: str, texts: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(root)
    expected = read_predictions(folder / "run/predictions.npz")
    model = mmrobust.load(folder / "run", device="cpu")
    assert expected["classes"].tolist() == list(model.classes)
    new, rows = runs.table_of_test(folder, table, "label")
    written = runs.every_combination(folder, new, list(model.modalities))
    files = files_of(rows, folder / "data", model.modalities, texts)
    assert len(files) > 1
    seen = 0
    for k, combination in enumerate(all_combinations(model.modalities)):
        name = combination_name(combination)
        assert name == expected["combinations"][k]
        drop = [m for m in model.modalities if m not in combination]
        for i, (row, sample) in enumerate(zip(written[name], files, strict=True)):
            if any(sample[m] is None for m in combination):
                continue
            odds = runs.softmax(expected["logits"][i, k])
            answer = model.predict(sample, drop=drop)
            np.testing.assert_allclose(list(answer.probabilities.values()), odds, atol=1e-5)
            np.testing.assert_allclose([float(row[f"p_{c}"]) for c in model.classes], odds, atol=1e-5)
            assert row["prediction"] == answer.prediction == model.classes[int(odds.argmax())]
            assert (row["id"], row["available"], row["error"]) == (expected["ids"][i], name, "")
            assert (answer.weights is None) == (row[f"weight_{combination[0]}"] == "") == (root == "said")
            seen += 1
    assert seen > len(expected["combinations"])


def test_maps(stripes: Path) -> None:
    expected = read_predictions(stripes / "run/predictions.npz")
    model = mmrobust.load(stripes / "run", device="cpu")
    new, rows = runs.table_of_test(stripes, "my.csv", "mask")
    written = runs.every_combination(stripes, new, ["rgb", "depth"])
    for k, combination in enumerate(all_combinations(["rgb", "depth"])):
        for i, row in enumerate(rows):
            given = {m: stripes / "data" / row[m] for m in combination}
            answer = model.predict(given)
            said = written[combination_name(combination)][i]
            mask = read_indices(stripes / said["prediction"])
            np.testing.assert_array_equal(mask, answer.prediction)
            assert Image.open(stripes / said["prediction"]).mode == "P"
            true = read_indices(stripes / "data" / row["mask"])
            assert mask.shape == true.shape
            valid = torch.from_numpy(true != 255)[None]
            label = torch.from_numpy(np.where(true == 255, 0, true)).long()[None]
            counts = confusion_counts(torch.from_numpy(mask).long()[None], label, valid, 3)[0]
            assert (counts.numpy() - expected["confusion"][i, k]).tolist() == np.zeros((3, 3)).tolist()
            assert float(said["uncertainty"]) == pytest.approx(answer.uncertainty, abs=1e-5)


def test_a_run_keeps_its_masks(stripes: Path) -> None:
    model = mmrobust.load(stripes / "run", device="cpu")
    _, rows = runs.table_of_test(stripes, "my.csv", "mask")
    assert sorted(p.name for p in (stripes / "run/masks").iterdir()) == sorted(f"{r['id']}.png" for r in rows)
    for row, files in zip(rows, files_of(rows, stripes / "data", ("rgb", "depth")), strict=True):
        kept = read_indices(stripes / f"run/masks/{row['id']}.png")
        np.testing.assert_array_equal(kept, model.predict(files).prediction)


@pytest.mark.parametrize("target", ["value", "labels"])
def test_numbers_and_labels(target: str, tmp_path: Path) -> None:
    runs.sentences(tmp_path, target)
    expected = read_predictions(tmp_path / "run/predictions.npz")
    model = mmrobust.load(tmp_path / "run", device="cpu")
    new, rows = runs.table_of_test(tmp_path, "said.csv", target)
    written = runs.every_combination(tmp_path, new, list(model.modalities))
    answers = model.predict(files_of(rows, tmp_path / "data", model.modalities, "said"))
    for i, answer in enumerate(answers):
        if answer.available != model.modalities:
            continue
        row = written["said+sequence+video"][i]
        if target == "value":
            assert answer.prediction == pytest.approx(float(expected["predicted"][i, -1, 0]), abs=1e-5)
            assert float(row["prediction"]) == pytest.approx(answer.prediction, abs=1e-6)
        else:
            odds = 1 / (1 + np.exp(-expected["logits"][i, -1]))
            np.testing.assert_allclose(list(answer.probabilities.values()), odds, atol=1e-5)
            assert answer.prediction == tuple(c for c, p in zip(model.classes, odds, strict=True) if p > 0.5)
            assert row["prediction"] == "|".join(answer.prediction)


def test_what_is_held_in_memory_is_as_good_as_a_file(cats: Path) -> None:
    import cv2
    import soundfile

    model, data = mmrobust.load(cats / "run", device="cpu"), cats / "data"
    files = {
        m: data / f"{m}/3.{end}"
        for m, end in [("rgb", "jpg"), ("depth", "png"), ("audio", "wav"), ("vector", "npy")]
    }
    held = {
        "rgb": cv2.cvtColor(cv2.imread(str(files["rgb"])), cv2.COLOR_BGR2RGB),
        "depth": cv2.imread(str(files["depth"]), cv2.IMREAD_UNCHANGED),
        "audio": soundfile.read(files["audio"]),
        "vector": np.load(files["vector"]),
    }
    plain = model.predict(files)
    np.testing.assert_allclose(
        list(model.predict(held).probabilities.values()), list(plain.probabilities.values()), atol=1e-6
    )
    pictures = held | {"depth": Image.open(files["depth"]), "rgb": Image.fromarray(held["rgb"])}
    assert model.predict(pictures).probabilities == model.predict(held).probabilities
    read = model.read(files)
    tensors = {m: x.tensor for m, x in read.items()}
    assert model.predict(tensors).probabilities == plain.probabilities
    logits = model(model.batch([read], ["a"])).logits
    np.testing.assert_allclose(
        torch.softmax(logits, 1)[0].numpy(), list(plain.probabilities.values()), atol=1e-6
    )


class Frame:
    """What of a DataFrame is used; pandas is no dependency."""

    def __init__(self, rows: list[dict]) -> None:
        self.rows, self.columns = rows, list(rows[0])

    def to_dict(self, orient: str) -> list[dict]:
        assert orient == "records"
        return self.rows


def test_a_table_in_memory(cats: Path) -> None:
    model = mmrobust.load(cats / "run", device="cpu")
    _, rows = runs.table_of_test(cats, "my.csv", "label")
    files = files_of(rows, cats / "data", model.modalities)
    # As pandas has it: NaN in empty cells, the other columns, too.
    cells = [{m: float("nan") if x is None else str(x) for m, x in sample.items()} for sample in files]
    named = [{"id": row["id"], "label": row["label"]} | of for row, of in zip(rows, cells, strict=True)]
    answers = model.predict(Frame(named))
    assert [a.id for a in answers] == [row["id"] for row in rows]
    assert [a.probabilities for a in answers] == [a.probabilities for a in model.predict(files)]


def test_threads_share_a_model(cats: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    model = mmrobust.load(cats / "run", device="cpu")
    samples = [
        {"rgb": cats / f"data/rgb/{i}.jpg", "audio": cats / f"data/audio/{i}.wav"} for i in range(1, 9)
    ]
    alone = [model.predict(sample) for sample in samples]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(model.predict, samples)) == alone


def test_one_file_says_the_same_without_the_run(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmrobust.export import main as export
    from mmrobust.predict.__main__ import main as predict

    path = tmp_path / "a b.mmrobust"
    assert export([f"run={stripes / 'run'}", f"output={path}"]) == 0
    assert str(stripes) not in path.read_bytes().decode("latin-1")
    monkeypatch.chdir(tmp_path)
    sample = {"rgb": stripes / "data/3_rgb.png", "depth": stripes / "data/3_depth.png"}
    one, other = (mmrobust.load(run, device="cpu").predict(sample) for run in (path, stripes / "run"))
    np.testing.assert_array_equal(one.prediction, other.prediction)
    np.testing.assert_array_equal(one.probabilities, other.probabilities)
    given = [f"{m}={file}" for m, file in sample.items()]
    assert predict([f"run={path}", *given, "output=p.csv", "overlay=true"]) == 0
    (row,) = runs.read_csv(tmp_path / "p.csv")
    np.testing.assert_array_equal(read_indices(tmp_path / row["prediction"]), one.prediction)
    assert Image.open(tmp_path / "p_masks/3_rgb_overlay.png").size == (64, 48)
