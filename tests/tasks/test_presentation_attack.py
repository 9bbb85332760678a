"""Face anti-spoofing metrics by hand, against torchmetrics, and through the evaluation of all combinations."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_roc

from mmrobust import evaluate
from mmrobust.batch import Batch
from mmrobust.errors import UserError
from mmrobust.evaluation.combinations import CombinationScores, Results, from_predictions
from mmrobust.evaluation.results import read_predictions, read_results, write_predictions
from mmrobust.methods.base import Method
from mmrobust.prepare.synthetic.casia_surf import make as make_casia_surf
from mmrobust.run import main as run
from mmrobust.tasks.metric import direction
from mmrobust.tasks.presentation_attack import (
    METRICS,
    RATES,
    TPR,
    equal_error_threshold,
    presentation_attack_metrics,
    scores,
)
from mmrobust.testing import describe_data, make_batch

Arrays = tuple[np.ndarray, np.ndarray]


def pair(attacks: list[float], live: list[float]) -> Arrays:
    """Logits whose differences are these scores, and targets."""
    score = np.array(attacks + live)
    return np.stack([-score / 2, score / 2], 1), np.array([0] * len(attacks) + [1] * len(live))


def drawn(count: int, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, count)
    logits = rng.normal(size=(count, 2)).astype(np.float32)
    logits[:, 1] += 1.5 * target
    return logits, target


def test_by_hand() -> None:
    """Of four attacks one is taken for live, of five live faces two for attacks."""
    logits, target = pair([-3, -2, -1, 2.5], [-1.5, -0.5, 1, 2, 3])
    found = presentation_attack_metrics(logits, target, None)
    assert found["apcer"] == 1 / 4
    assert found["bpcer"] == 2 / 5
    assert found["acer"] == found["hter"] == pytest.approx((1 / 4 + 2 / 5) / 2)
    # between -1 and -0.5 one attack of four passes and one live face of five does not
    assert found["eer"] == pytest.approx((1 / 4 + 1 / 5) / 2)
    assert equal_error_threshold(logits, target) == -0.75
    # with no attack accepted, the threshold is at least 2.5: one live face of five is above
    assert [found[name] for name in TPR] == pytest.approx([1 / 5] * 3)
    at = presentation_attack_metrics(logits, target, 2.75)
    assert at["hter"] == pytest.approx((0 + 4 / 5) / 2)
    assert {k: v for k, v in at.items() if k != "hter"} == {k: v for k, v in found.items() if k != "hter"}


def test_perfect_and_reversed() -> None:
    right = presentation_attack_metrics(*pair([-1, -2], [1, 2]), None)
    assert right == dict.fromkeys(METRICS, 0.0) | dict.fromkeys(TPR, 1.0)
    wrong = presentation_attack_metrics(*pair([1, 2], [-1, -2]), None)
    assert wrong == dict.fromkeys(METRICS, 1.0) | dict.fromkeys(TPR, 0.0)


def test_equal_scores_cannot_be_parted() -> None:
    """All attacks have the score of a third of the live faces: accepting these accepts all attacks."""
    found = presentation_attack_metrics(*pair([0.5] * 4, [0.5, 1, 2]), None)
    assert found["apcer"] == 1
    assert found["eer"] == pytest.approx((0 + 1 / 3) / 2)
    assert found["tpr_at_fpr_1e-2"] == pytest.approx(2 / 3)


def test_one_in_ten_thousand() -> None:
    """Of 20,000 attacks 200, 20 and 2 may pass."""
    attacks = np.linspace(-1, 1, 20_000).tolist()
    live = [attacks[-1] + 1, *(attacks[-2 - k] - 1e-6 for k in (1, 19, 199, 1000))]
    found = presentation_attack_metrics(*pair(attacks, live), None)
    for rate, name in zip(RATES, TPR, strict=True):
        accepted = round(rate * 20_000)
        limit = np.sort(attacks)[-accepted - 1]  # this one may not pass
        assert found[name] == pytest.approx((np.array(live) > limit).mean())


@pytest.mark.parametrize("seed", range(3))
def test_against_torchmetrics(seed: int) -> None:
    logits, target = drawn(2000, seed)
    found = presentation_attack_metrics(logits, target, None)
    probability = torch.sigmoid(torch.from_numpy(scores(logits)))
    far, tpr, _ = binary_roc(probability, torch.from_numpy(target))
    frr = 1 - tpr
    best = int((far - frr).abs().argmin())
    assert found["eer"] == pytest.approx(float(far[best] + frr[best]) / 2, abs=1e-3)
    for rate, name in zip(RATES, TPR, strict=True):
        assert found[name] == pytest.approx(float(tpr[far <= rate].max()), abs=1e-6)
    predicted = logits.argmax(1)
    assert found["apcer"] == pytest.approx((predicted[target == 0] == 1).mean())
    assert found["bpcer"] == pytest.approx((predicted[target == 1] == 0).mean())


def test_threshold_of_one_split_on_another() -> None:
    """At its own equal error threshold the HTER is the EER; at another's it is not below by chance alone."""
    logits, target = drawn(1000)
    threshold = equal_error_threshold(logits, target)
    found = presentation_attack_metrics(logits, target, threshold)
    assert found["hter"] == pytest.approx(found["eer"])
    shifted = logits + np.array([0, 3], np.float32)  # all scores grow by 3, and so must the threshold
    assert presentation_attack_metrics(shifted, target, threshold)["hter"] > 0.3
    assert equal_error_threshold(shifted, target) == pytest.approx(threshold + 3, abs=1e-5)


@pytest.mark.parametrize("target", [[0, 0], [1, 1], []])
def test_one_class_alone_is_none(target: list[int]) -> None:
    logits = np.zeros((len(target), 2), np.float32)
    assert presentation_attack_metrics(logits, np.array(target), None) == dict.fromkeys(METRICS)
    assert equal_error_threshold(logits, np.array(target)) is None


# Through the evaluation


@pytest.fixture
def method(build: Callable[..., Method]) -> Method:
    spec = describe_data(num_modalities=2, kinds=["vector"], num_classes=2)
    return build(replace(spec, metrics=("presentation_attack",), primary="acer"))


def evaluated(method: Method, *, complete: bool, thresholds: dict[str, np.ndarray] | None = None) -> Results:
    collect = CombinationScores(
        method.task, method.modalities, method.combinations(), keep_predictions=complete
    )
    with torch.no_grad():
        for start, seed in ((16, 0), (0, 1)):
            batch = make_batch(method.spec, 16, complete=complete, seed=seed)
            collect.update(method, Batch(**{**vars(batch), "index": batch.index + start}))
    return collect.finish(thresholds)


@pytest.mark.parametrize("complete", [True, False])
def test_every_combination_on_the_samples_that_have_it(method: Method, complete: bool) -> None:
    thresholds = {"presentation_attack": np.array([0.1, -0.2, 0.05, np.nan])}
    results = evaluated(method, complete=complete, thresholds=thresholds)
    predictions = results.predictions
    assert predictions is not None
    for k, (name, columns) in enumerate({"m1": [0], "m2": [1], "m1+m2": [0, 1]}.items()):
        rows = predictions["available"][:, columns].all(1)
        logits, target = predictions["logits"][rows, k], predictions["target"][rows]
        expected = presentation_attack_metrics(logits, target, thresholds["presentation_attack"][k])
        row = results.combinations[name]
        assert row is not None
        assert {m: row["metrics"][m] for m in METRICS} == expected
        assert results.equal_errors["presentation_attack"][k] == equal_error_threshold(logits, target)
        assert row["metrics"]["accuracy"] == pytest.approx((logits.argmax(1) == target).mean())
    rows = [row["metrics"] for row in results.combinations.values() if row]
    assert results.primary == "acer"
    assert results.aggregates["worst"] == max(rows, key=lambda row: row["acer"])
    assert results.aggregates["average"]["hter"] == pytest.approx(np.mean([row["hter"] for row in rows]))
    if complete:
        assert results.aggregates["available"]["eer"] == results.aggregates["full"]["eer"]


def test_recomputed_from_predictions(method: Method) -> None:
    thresholds = {"presentation_attack": np.array([0.1, -0.2, np.nan, 0.3])}
    results = evaluated(method, complete=False, thresholds=thresholds)
    assert results.predictions is not None
    again = from_predictions(results.predictions, method.task)
    assert again.combinations == results.combinations
    assert again.aggregates == results.aggregates
    without = {k: v for k, v in results.predictions.items() if not k.startswith("threshold_")}
    assert from_predictions(without, method.task).combinations != results.combinations


def test_state_holds_the_thresholds(method: Method) -> None:
    buffer = method.state_dict()["threshold_presentation_attack"]
    assert buffer.shape == (4,)  # three combinations, and as available
    assert buffer.isnan().all()


def test_what_is_not_known_is_refused(build: Callable[..., Method]) -> None:
    two = describe_data(num_modalities=2, kinds=["vector"], num_classes=2)
    for changes, told in (
        ({"metrics": ("spoofing",)}, "asks for metrics 'spoofing'; known are presentation_attack"),
        ({"metrics": ("presentation_attack",), "num_classes": 3}, "made for 2 classes; the dataset has 3"),
        ({"primary": "acer"}, "primary metric 'acer' is none of this dataset's: accuracy, macro_f1, ece"),
    ):
        with pytest.raises(UserError, match=told):
            build(replace(two, **changes))


def test_directions() -> None:
    assert [direction(m) for m in ("accuracy", "miou", "acer", "hter", "eer", "ece", TPR[0])] == [
        *("max", "max", "min", "min", "min", "min", "max")
    ]


# A whole run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "threshold"),
    [([], "validation"), (["selection=paper"], "argmax"), (["data.lists.val=null"], "argmax")],
)
def test_whole_run(tmp_path: Path, changes: list[str], threshold: str) -> None:
    """The threshold comes with the checkpoint, never from the test split; every number can be recomputed."""
    make_casia_surf(tmp_path / "casia_surf")
    command = ["data=casia_surf", "method=dropout", "encoder=tiny", "encoder.width=8", "logger=none"]
    command += ["data.workers=0", "data.batch_size=4", "data.image_size=24", "data.primary=acer"]
    command += ["trainer.max_epochs=3", "trainer.accelerator=cpu", f"paths.data={tmp_path}"]
    assert run([*command, f"paths.outputs={tmp_path / 'outputs'}", *changes]) == 0
    (folder,) = tmp_path.glob("outputs/*/*")
    results, predictions = read_results(folder), read_predictions(folder / "predictions.npz")
    assert results["primary"] == {"metric": "acer", "direction": "min"}
    assert results["protocol"]["metrics"] == ["presentation_attack"]
    assert results["protocol"]["threshold"] == threshold
    rows = [row["metrics"] for row in results["combinations"].values()]
    assert results["aggregates"]["worst"]["acer"] == max(row["acer"] for row in rows)
    fixed = predictions["threshold_presentation_attack"]
    assert fixed.shape == (8,)
    assert np.isnan(fixed).all() == (threshold == "argmax")
    if threshold == "argmax":
        assert all(row["hter"] == row["acer"] for row in rows)
    assert evaluate.main([f"run={folder}", "verify=true"]) == 0
    if threshold == "validation":
        assert evaluate.main([f"run={folder}"]) == 0
        again = read_results(next((folder / "evaluations").glob("test-*")))
        assert again["combinations"] == results["combinations"]
        write_predictions(folder, predictions | {"threshold_presentation_attack": fixed + 100})
        assert evaluate.main([f"run={folder}", "verify=true"]) == 1
