"""The panel: every kind of input and answer has its look, what is absent is not shown, a failure costs nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from mmrobust.batch import Batch
from mmrobust.combinations import all_combinations, combination_name
from mmrobust.data.spec import KINDS
from mmrobust.data.synthetic import Synthetic
from mmrobust.methods.base import Method
from mmrobust.missing import Fixed
from mmrobust.reporting import panel
from mmrobust.reporting.cells import VOID_GREY, palette, stretched
from mmrobust.reporting.panel import chosen_combinations, chosen_samples, draw, predict, save_panel, scores
from mmrobust.testing import describe_data, fill_absent, make_batch
from tests.data.test_synthetic import make

GREEN, RED = (0xE8, 0xF5, 0xE9), (0xFD, 0xEC, 0xEA)


def results_of(modalities: Any, metric: str = "accuracy") -> dict[str, Any]:
    """As if every combination of k modalities had scored k tenths."""
    rows = {
        combination_name(c): {"n": 1, "metrics": {metric: len(c) / 10}} for c in all_combinations(modalities)
    }
    return {"primary": {"metric": metric, "direction": "max"}, "combinations": rows}


def share(path: Path, colour: tuple[float, ...]) -> float:
    """Of the picture's pixels that have a colour."""
    pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)  # type: ignore[arg-type]
    return float((np.abs(pixels.astype(float) - np.array(colour)) <= 1).all(-1).mean())


def of_255(colour: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(255 * x for x in colour)


def small(**keys: Any) -> Synthetic:
    data = make(**{"num_train": 8, "num_val": 4, "num_test": 9, "batch_size": 4, **keys})
    data.setup()
    return data


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn(kind: str, tmp_path: Path, build: Callable[..., Method]) -> None:
    data = small(kinds=[kind, "image"], variants=1)
    path = tmp_path / "panel.png"
    assert save_panel(build(data.spec), data, results_of(data.names), path, "a title")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_run_of_scenes(tmp_path: Path, build: Callable[..., Method]) -> None:
    data = small(task="segmentation", num_modalities=3)
    path = tmp_path / "panel.png"
    assert save_panel(build(data.spec), data, results_of(data.names, "miou"), path, "a title")
    assert share(path, of_255(palette(8)[0])) > 0.04  # the wall
    assert 0 < share(path, of_255(VOID_GREY)) < 0.02


def test_right_is_green_and_wrong_is_red(tmp_path: Path) -> None:
    spec = replace(describe_data(), classes=("a cat", "a dog that has quite a long name", "c", "d"))
    batch = make_batch(spec, size=2)
    right = [(np.array(t), np.array(0.9)) for t in batch.target]
    wrong = [(np.array((t + 1) % 4), np.array(0.6)) for t in batch.target]
    for answers, colour, other in ((right, GREEN, RED), (wrong, RED, GREEN)):
        draw(batch, spec, {"m1": answers, "m2": answers}, {}, tmp_path / "panel.png", "a title")
        assert share(tmp_path / "panel.png", colour) > 0.1
        assert share(tmp_path / "panel.png", other) == 0


def test_a_map_has_the_colours_of_its_classes_and_void_is_grey(tmp_path: Path) -> None:
    spec = replace(describe_data(task="segmentation", num_modalities=1), ignore_index=255)
    batch = make_batch(spec, size=1)
    batch.target[:] = 255
    batch.target[:, :16] = 2
    answer = (np.full((32, 32), 3), np.ones((32, 32)))
    draw(batch, spec, {"m1": [answer]}, {}, tmp_path / "panel.png", "a title")
    half, whole = (share(tmp_path / "panel.png", of_255(palette(4)[k])) for k in (2, 3))
    assert whole > 0.1
    assert half == pytest.approx(whole / 2, rel=0.1)
    assert share(tmp_path / "panel.png", of_255(VOID_GREY)) == pytest.approx(half, rel=0.1)
    assert share(tmp_path / "panel.png", of_255(palette(4)[1])) == 0


def test_labels_of_their_own_size_are_cut_from_what_pads_them(tmp_path: Path) -> None:
    spec = replace(describe_data(task="segmentation", num_modalities=1), ignore_index=255)
    batch = make_batch(spec, size=1)
    batch.label_size = torch.tensor([[20, 32]])
    batch.target[:, :20], batch.target[:, 20:] = 1, 255
    draw(
        batch,
        spec,
        {"m1": [(np.ones((32, 32), int), np.ones((32, 32)))]},
        {},
        tmp_path / "panel.png",
        "a title",
    )
    assert share(tmp_path / "panel.png", of_255(VOID_GREY)) < 0.002  # the legend names what the batch has


def test_the_palette_does_not_hang_on_the_number_of_classes() -> None:
    assert palette(13) == palette(40)[:13]
    colours = np.array([*palette(40), VOID_GREY])
    apart = np.abs(colours[:, None] - colours).sum(-1) + np.eye(41)
    assert apart.min() > 0.09


def test_what_is_absent_is_not_shown(tmp_path: Path, build: Callable[..., Method]) -> None:
    """Neither in the input's column nor in those of combinations; whatever lies there."""
    spec = describe_data(num_modalities=2)
    batch = make_batch(spec, size=2)
    batch.available[0, 1] = False
    method = build(spec)
    drawn = []
    for value in (torch.nan, 3.0):
        filled = fill_absent(batch, value)
        predictions = predict(method, filled, all_combinations(["m1", "m2"]))
        assert [predictions[c][0] is None for c in ("m1", "m2", "m1+m2")] == [False, True, True]
        assert all(column[1] is not None for column in predictions.values())
        draw(filled, spec, predictions, {}, tmp_path / "panel.png", "a title")
        drawn.append((tmp_path / "panel.png").read_bytes())
    assert drawn[0] == drawn[1]


def test_predictions_are_those_of_the_method_alone(build: Callable[..., Method]) -> None:
    spec = describe_data(num_modalities=3)
    method, batch = build(spec).train(), make_batch(spec, size=3)
    found = predict(method, batch, [("m1",), ("m1", "m3")])
    assert method.training
    only = batch.with_available(torch.tensor([[True, False, True]]).expand(3, -1))
    with torch.no_grad():
        probability = method.eval()(only).logits.softmax(1)
    for i, answer in enumerate(found["m1+m3"]):
        assert answer is not None
        assert int(answer[0]) == int(probability[i].argmax())
        assert float(answer[1]) == pytest.approx(float(probability[i].max()), abs=1e-5)


def test_of_many_combinations_the_single_ones_the_worst_and_the_full_are_shown() -> None:
    modalities = [f"m{i}" for i in range(6)]
    results, served = results_of(modalities), all_combinations(modalities)
    results["combinations"]["m1+m2"]["metrics"]["accuracy"] = 0.01
    results["combinations"]["m4+m5"]["metrics"]["accuracy"] = None
    chosen = [combination_name(c) for c in chosen_combinations(served, results)]
    assert chosen == [*modalities, "m1+m2", "+".join(modalities)]
    few = all_combinations(modalities[:3])
    assert chosen_combinations(few, results) == few


def test_scores_have_the_metrics_name() -> None:
    results = results_of(["a", "b"], "miou")
    results["combinations"]["b"] = None
    assert scores(results) == {"a": (0.1, "mIoU 0.100"), "a+b": (0.2, "mIoU 0.200")}


def test_samples_are_spread_and_lack_as_little_as_possible() -> None:
    data = small()
    assert chosen_samples(data, "test").index.tolist() == [1, 3, 5, 7]
    data.masks["test"][[3, 4, 5], 0] = False
    assert chosen_samples(data, "test").index.tolist() == [0, 2, 6, 8]
    missing = {"train": Fixed(["m1"]), "test": Fixed(["m1"]), "seed": 0}
    batch: Batch = chosen_samples(small(missing=missing), "val")
    assert batch.available.tolist() == [[True, False]] * 4


def test_a_picture_that_cannot_be_drawn_is_a_warning(
    tmp_path: Path,
    build: Callable[..., Method],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = small()

    def fail(*_: Any) -> None:
        raise OSError("no ink")

    monkeypatch.setattr(panel, "draw", fail)
    with caplog.at_level("WARNING", "mmrobust"):
        drawn = save_panel(build(data.spec), data, results_of(data.names), tmp_path / "panel.png", "a title")
    assert not drawn
    assert "no panel.png was drawn: OSError: no ink" in caplog.text


def test_a_constant_input_is_drawn() -> None:
    assert stretched(np.zeros((4, 4), np.float32)).tolist() == np.zeros((4, 4)).tolist()
