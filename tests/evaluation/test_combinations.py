"""Every combination in one pass: stacked equals looped, and only samples that truly have one are counted."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from mmrobust.batch import Batch
from mmrobust.combinations import all_combinations, combination_masks, combination_name
from mmrobust.errors import DivergenceError
from mmrobust.evaluation import combinations
from mmrobust.evaluation.combinations import CombinationScores, Results, from_predictions, stacked
from mmrobust.methods.base import Method
from mmrobust.methods.fusion import Fusion
from mmrobust.methods.late import LateFusion
from mmrobust.testing import describe_data, make_batch
from tests.made import batches

Build = Callable[..., Method]


def scored(method: Method, data: list[Batch], served: list[tuple[str, ...]] | None = None) -> Results:
    scores = CombinationScores(
        method.task, method.modalities, served or method.combinations(), keep_predictions=True
    )
    with torch.no_grad():
        for batch in data:
            scores.update(method, batch)
    return scores.finish()


def looped(method: Method, data: list[Batch], mask: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted and true classes of the samples that have a whole combination, by a pass of its own."""
    predicted, target = [], []
    for batch in data:
        has = (batch.available | ~mask).all(1)
        logits = method(batch.with_available(torch.where(has[:, None], mask, batch.available))).logits
        predicted.append(logits.argmax(1)[has])
        target.append(batch.target[has])
    return torch.cat(predicted), torch.cat(target)


@pytest.fixture(params=["classification", "segmentation"])
def method(request: pytest.FixtureRequest, build: Build) -> Method:
    return build(describe_data(num_modalities=3, task=request.param))


# Stacking


@pytest.mark.parametrize("count", [1, 2, 6])
@pytest.mark.parametrize("kind", [Fusion, LateFusion])
@pytest.mark.parametrize("complete", [True, False])
@torch.no_grad()
def test_stacked_is_looped(build: Build, count: int, kind: type[Method], complete: bool) -> None:
    spec = describe_data(num_modalities=count, kinds=["vector"])
    method = build(spec, kind, **({} if kind is Fusion else {"unimodal_weight": 1.0, "fused_weight": 1.0}))
    batch = make_batch(spec, complete=complete)
    masks = combination_masks(all_combinations(method.modalities), method.modalities)
    together = torch.cat([logits for _, logits in stacked(method, batch, masks)])
    assert together.shape == (2**count - 1, len(batch), spec.num_classes)
    for mask, logits in zip(masks, together, strict=True):
        available = mask & batch.available
        available = torch.where(available.any(1, keepdim=True), available, batch.available)
        torch.testing.assert_close(logits, method(batch.with_available(available)).logits)


@pytest.mark.parametrize(("limit", "chunks"), [(1, 7), (2**40, 1)])
def test_chunks_change_nothing(
    method: Method, monkeypatch: pytest.MonkeyPatch, limit: int, chunks: int
) -> None:
    data = list(batches(method))
    expected = scored(method, data)
    monkeypatch.setattr(combinations, "STACK_BYTES", limit)
    masks = combination_masks(all_combinations(method.modalities), method.modalities)
    with torch.no_grad():
        slices = [rows for rows, _ in stacked(method, data[0], masks)]
    assert [rows.start for rows in slices] == list(range(0, 7, -(-7 // chunks)))
    assert same(scored(method, data), expected)


def test_chunks_of_several_combinations(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """7 combinations at 3 a time; a classifier's features are 3 maps of width 8, its logits 4 numbers."""
    method = build(describe_data(num_modalities=3, kinds=["vector"]))
    data = list(batches(method, sizes=(10,)))
    expected = scored(method, data)
    monkeypatch.setattr(combinations, "STACK_BYTES", 3 * 10 * 4 * (3 * 8 + 4))
    masks = combination_masks(all_combinations(method.modalities), method.modalities)
    with torch.no_grad():
        slices = [(rows.start, rows.stop) for rows, _ in stacked(method, data[0], masks)]
    assert slices == [(0, 3), (3, 6), (6, 7)]
    assert same(scored(method, data), expected)


def same(first: Results, second: Results) -> bool:
    """Exactly, logits aside."""
    return (
        first.combinations == second.combinations
        and first.aggregates == second.aggregates
        and list(first.confusion) == list(second.confusion)
        and all(torch.equal(x, second.confusion[name]) for name, x in first.confusion.items())
    )


# Who counts


@torch.no_grad()
def test_only_samples_that_have_the_whole_combination_count(method: Method) -> None:
    data = list(batches(method))
    results = scored(method, data)
    available = torch.cat([batch.available for batch in data])
    sizes = set()
    for combination in all_combinations(method.modalities):
        mask = combination_masks([combination], method.modalities)[0]
        predicted, target = looped(method, data, mask)
        valid = target != method.spec.ignore_index
        row = results.combinations[combination_name(combination)]
        assert row is not None
        assert row["n"] == len(target) == int(available[:, mask].all(1).sum())
        metric = "accuracy" if method.spec.task == "classification" else "pixel_accuracy"
        assert row["metrics"][metric] == pytest.approx((predicted == target)[valid].double().mean().item())
        assert results.confusion[combination_name(combination)].sum() == valid.sum()
        sizes.add(row["n"])
    assert len(sizes) > 1  # the data is incomplete


@torch.no_grad()
def test_available_predicts_every_sample_from_what_it_has(method: Method) -> None:
    data = list(batches(method))
    predicted = torch.cat([method(batch).logits.argmax(1) for batch in data])
    target = torch.cat([batch.target for batch in data])
    valid = target != method.spec.ignore_index
    metric = "accuracy" if method.spec.task == "classification" else "pixel_accuracy"
    found = scored(method, data).aggregates["available"][metric]
    assert found == pytest.approx((predicted == target)[valid].double().mean().item())


def test_aggregates(method: Method) -> None:
    results = scored(method, list(batches(method)))
    primary = results.primary
    rows = [row["metrics"] for row in results.combinations.values() if row]
    for metric, value in results.aggregates["average"].items():
        assert value == pytest.approx(np.mean([row[metric] for row in rows])), metric
    worst = results.aggregates["worst"]
    assert worst in rows
    assert worst[primary] == min(row[primary] for row in rows)
    assert results.aggregates["full"] == rows[-1]


def test_of_complete_data_available_is_full(method: Method) -> None:
    results = scored(method, list(batches(method, complete=True)))
    assert {row["n"] for row in results.combinations.values() if row} == {33}
    assert results.aggregates["available"] == results.aggregates["full"]


def test_a_combination_that_no_sample_has_is_null(build: Build) -> None:
    method = build(describe_data(num_modalities=2, kinds=["vector"]))
    batch = next(batches(method))
    results = scored(method, [batch.with_available(torch.tensor([[True, False]] * len(batch)))])
    nothing = {"n": 0, "metrics": {"accuracy": None, "macro_f1": None, "ece": None}}
    assert results.combinations["m2"] == results.combinations["m1+m2"] == nothing
    assert (
        results.aggregates["average"] == results.aggregates["worst"] == results.combinations["m1"]["metrics"]
    )
    assert set(results.flat("val")) == {
        f"val/{row}/{metric}"
        for row in ("m1", "average", "worst", "available")
        for metric in ("accuracy", "macro_f1", "ece")
    }


def test_a_combination_that_is_not_served_is_null(method: Method) -> None:
    data = list(batches(method, complete=True))
    everything, some = scored(method, data), scored(method, data, [("m1",), ("m2", "m3")])
    assert list(some.combinations) == list(everything.combinations)  # named all the same
    for name, row in some.combinations.items():
        assert row == (everything.combinations[name] if name in ("m1", "m2+m3") else None)
    assert set(some.aggregates["full"].values()) == {None}
    assert list(some.confusion) == ["m1", "m2+m3"]


def test_a_pass_starts_afresh(method: Method) -> None:
    scores = CombinationScores(method.task, method.modalities, method.combinations(), keep_predictions=True)
    data = list(batches(method))
    found = []
    for _ in range(2):
        with torch.no_grad():
            for batch in data:
                scores.update(method, batch)
        found.append(scores.finish())
    assert same(*found)
    assert len(found[1].predictions["index"]) == 33


# Predictions


@pytest.mark.parametrize("served", [None, [("m1",), ("m2", "m3")]], ids=["all", "two"])
def test_results_are_recomputed_from_predictions(
    method: Method, served: list[tuple[str, ...]] | None
) -> None:
    results = scored(method, list(batches(method)), served)
    assert results.predictions is not None
    assert same(from_predictions(results.predictions, method.task), results)


@torch.no_grad()
def test_predictions_are_in_the_order_of_the_samples(method: Method) -> None:
    data = list(batches(method))
    predictions = scored(method, data).predictions
    assert predictions is not None
    assert predictions["index"].tolist() == list(range(33))
    assert predictions["modalities"].tolist() == ["m1", "m2", "m3"]
    assert predictions["combinations"].tolist() == [combination_name(c) for c in method.combinations()]
    for batch in data:
        np.testing.assert_array_equal(predictions["available"][batch.index], batch.available)
    if method.spec.task == "classification":
        assert predictions["logits"].shape == (33, 7, 4)
        full = torch.cat([method(b.with_available(torch.ones_like(b.available))).logits for b in data[::-1]])
        has = predictions["available"].all(1)
        np.testing.assert_allclose(predictions["logits"][has, -1], full[has], atol=1e-5)
    else:
        assert predictions["confusion"].shape == (33, 7, 4, 4)
        assert (predictions["confusion"].sum((2, 3)) == 27 * 32).all()  # 5 of 32 rows are void


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_no_numbers_are_refused_by_the_samples_names(method, monkeypatch, value):
    fuse = method.fuse

    def bad(features, available):
        logits = fuse(features, available).logits.clone()
        whole = available.all(1).nonzero().ravel()  # of the one sample below, stacked
        logits[whole[:1], ..., -1] = value
        return type("Bad", (), {"logits": logits})

    monkeypatch.setattr(method, "fuse", bad)
    data = list(batches(method, complete=True))
    scores = CombinationScores(method.task, method.modalities, method.combinations())
    with torch.no_grad():
        for batch in data:
            scores.update(method, batch)
    with pytest.raises(DivergenceError, match=r"NaN or infinite for 2 samples: sample 0, sample 0\. "):
        scores.finish()
    monkeypatch.setattr(method, "fuse", fuse)
    assert scored(method, data).combinations  # what comes after is not held guilty


def test_a_row_that_nobody_counts_may_be_no_number(method, monkeypatch):
    """A sample without any of a combination's modalities."""
    (batch,) = batches(method, complete=True, sizes=(24,))
    batch.available[0] = torch.tensor([True, False, False])
    wanted = torch.eye(3, dtype=torch.bool)[1]
    scores = CombinationScores(method.task, method.modalities, [("m2",)])
    fuse = method.fuse

    def bad(features, available):
        logits = fuse(features, available).logits.clone()
        logits[(available & wanted).sum(1) == 0] = float("nan")
        return type("Bad", (), {"logits": logits})

    monkeypatch.setattr(method, "fuse", bad)
    with torch.no_grad():
        scores.update(method, batch)
    assert scores.finish().combinations["m2"]["n"] == 23
