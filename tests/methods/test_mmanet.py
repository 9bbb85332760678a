"""MMANet against its equations."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmrobust.batch import Batch
from mmrobust.combinations import combination_code
from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.errors import UserError
from mmrobust.losses import margin_aware_distillation
from mmrobust.methods.base import Output
from mmrobust.methods.mmanet import MMANet
from mmrobust.models.pyramid import levels
from mmrobust.testing import describe_data, make_batch, step


def make(*overrides: str, num_modalities: int = 2, task: str = "classification") -> MMANet:
    torch.manual_seed(0)
    config = compose_config(["method=mmanet", "encoder.width=8", *overrides]).method
    kinds = ("vector",) if task == "classification" else ("image",)
    method: MMANet = construct(
        config, spec=describe_data(num_modalities=num_modalities, kinds=kinds, task=task)
    )
    return method


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The warm-up is over."""
    monkeypatch.setattr(MMANet, "current_epoch", 5)


class Guide:
    """Stands in for a teacher: another network's prediction."""

    def __init__(self, *overrides: str, **keys: object) -> None:
        torch.manual_seed(1)
        self.network = make(*overrides, **keys).eval()  # type: ignore[arg-type]

    def __call__(self, batch: Batch) -> Output:
        with torch.no_grad():
            return self.network(batch)


def test_terms_are_the_papers(later: None) -> None:
    method = make("method.weak=[m1]", "method.regularization_weight=0.7").train()
    method.teacher = guide = Guide()  # type: ignore[assignment]
    batch = make_batch(method.spec, size=16)
    terms = step(method, batch)
    drawn, features = method.draw(batch), method.encode(batch)
    fused = method.fusion(features, drawn)
    torch.testing.assert_close(terms["task"], F.cross_entropy(method.head(fused).logits, batch.target))
    again = F.cross_entropy(
        method.regularizer_head(method.regularizer(features, drawn)).logits, batch.target, reduction="none"
    )
    weak = drawn[:, 0] & ~drawn[:, 1]
    assert 0 < weak.sum() < 16
    torch.testing.assert_close(terms["regularization"], 0.7 * again[weak].sum() / 16)
    complete = guide(batch)
    assert complete.fused is not None
    expected = margin_aware_distillation(fused, complete.fused, complete.logits)
    assert expected > 0
    torch.testing.assert_close(terms["distillation"], 4 * expected)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_only_the_task_counts_in_the_warm_up(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method = make("method.weak=[m1]", task=task).train()
    method.teacher = Guide(task=task)  # type: ignore[assignment]
    batch = make_batch(method.spec, size=8)
    for epoch in (4, 5):
        monkeypatch.setattr(MMANet, "current_epoch", epoch)
        terms = step(method, batch)
        assert terms["task"] > 0
        for name in ("distillation", "regularization"):
            assert (terms[name] > 0) == (epoch == 5)


def test_distillation_may_begin_before_the_regularisation(monkeypatch: pytest.MonkeyPatch) -> None:
    method = make("method.weak=[m1]", "method.distillation_from=0", "method.warm_up=6").train()
    method.teacher = Guide()  # type: ignore[assignment]
    batch = make_batch(method.spec, size=16)
    for epoch in (0, 5, 6):
        monkeypatch.setattr(MMANet, "current_epoch", epoch)
        terms = step(method, batch)
        assert terms["distillation"] > 0
        assert (terms["regularization"] > 0) == (epoch == 6)
    assert method.selectable_from == 6


def test_a_trunks_map_is_related_before_it_is_averaged(later: None) -> None:
    """And the regularisation network is a trunk of its own on the same encoders."""
    torch.manual_seed(0)
    config = compose_config(["method=mmanet", "encoder.width=8", "fusion=trunk", "method.weak=[m1]"]).method
    method, guide = (construct(config, spec=describe_data(kinds=("image",))).train() for _ in range(2))
    method.teacher = guide.eval()
    batch = make_batch(method.spec, size=8)
    terms = method.losses(batch)
    drawn, features = method.draw(batch), method.encode(batch)
    with torch.no_grad():
        fused, complete = method.fusion(features, drawn), guide(batch)
    assert fused.shape == complete.fused.shape == (8, 8, 4, 4)
    expected = margin_aware_distillation(fused.flatten(1), complete.fused.flatten(1), complete.logits)
    torch.testing.assert_close(terms["distillation"], 4 * expected)
    again = method.regularizer_head(method.regularizer(features, drawn).mean((2, 3))).logits
    loss = F.cross_entropy(again, batch.target, reduction="none")[drawn[:, 0] & ~drawn[:, 1]]
    torch.testing.assert_close(terms["regularization"], 0.5 * loss.sum() / 8)
    shared = {p.data_ptr() for p in method.fusion.parameters()}
    assert not any(p.data_ptr() in shared for p in method.regularizer.parameters())


def labels_of_easy_samples_matter(*overrides: str) -> bool:
    method = make("method.weak=[m1]", *overrides)
    batch = make_batch(method.spec, size=16)
    before = step(method, batch)["regularization"]
    easy = combination_code(method.draw(batch)) != 1
    batch.target[easy] = (batch.target[easy] + 1) % method.spec.num_classes
    return not torch.equal(before, step(make("method.weak=[m1]", *overrides), batch)["regularization"])


def test_regularisation_ignores_the_labels_of_easy_samples(later: None) -> None:
    assert not labels_of_easy_samples_matter()
    assert labels_of_easy_samples_matter("method.as_released.unmasked_regularization=true")


def test_unmasked_regularisation_is_the_released_broadcast(later: None) -> None:
    method = make("method.weak=[m1]", "method.as_released.unmasked_regularization=true").train()
    batch = make_batch(method.spec, size=16)
    term = method.losses(batch)["regularization"]
    drawn = method.draw(batch)
    logits = method.regularizer_head(method.regularizer(method.encode(batch), drawn)).logits
    indicator = (combination_code(drawn) == 1).float().reshape(16, 1, 1, 1)
    released = (F.cross_entropy(logits, batch.target, reduction="none") * indicator).sum() / 16
    torch.testing.assert_close(term, 0.5 * released)


def test_column_weights(later: None) -> None:
    found: dict[str, Tensor] = {}
    for value in ("false", "true"):
        method = make(f"method.as_released.column_weights={value}")
        method.teacher = Guide()  # type: ignore[assignment]
        found[value] = step(method, make_batch(method.spec, size=16))["distillation"]
    assert not torch.allclose(found["false"], found["true"])


def test_regularisation_reaches_the_encoders_but_not_the_deployed_head(later: None) -> None:
    method = make("method.weak=[m1]").train()
    method.losses(make_batch(method.spec, size=16))["regularization"].backward()
    parts = [method.encoders["m1"], method.regularizer_head]
    assert all(p.grad is not None and p.grad.any() for part in parts for p in part.parameters())
    assert all(p.grad is None for p in method.head.parameters())
    assert method.regularizer is not method.fusion


def test_places_of_maps_are_samples(later: None) -> None:
    """In segmentation; the logits are pooled to the map's size, the chunks change nothing."""
    found = []
    for overrides in ([], ["method.chunk=7"], ["method.max_places=[2,2]"]):
        method = make(*overrides, task="segmentation").train()
        guide = Guide(task="segmentation")
        method.teacher = guide  # type: ignore[assignment]
        batch = make_batch(method.spec, size=2)
        found.append(step(method, batch)["distillation"].item())
        complete = guide(batch)
        fused = method.fuse(method.encode(batch), method.draw(batch)).fused
        assert fused is not None
        assert complete.fused is not None
        pairs = list(zip(levels(fused), levels(complete.fused), strict=True))
        assert [tuple(ours.shape[2:]) for ours, _ in pairs] == [(4, 4), (8, 8), (16, 16)]
        expected = 0.0
        for ours, theirs in pairs:
            places = (2, 2) if overrides == ["method.max_places=[2,2]"] else tuple(ours.shape[2:])
            rows = [
                F.adaptive_avg_pool2d(x, places).permute(0, 2, 3, 1).reshape(2 * places[0] * places[1], -1)
                for x in (ours, theirs, complete.logits)
            ]
            expected += 4 * margin_aware_distillation(*rows).item()
        assert found[-1] == pytest.approx(expected, rel=1e-4)
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_mistakes() -> None:
    with pytest.raises(UserError, match=r"mining_epochs=6 are the last of the method.warm_up=5"):
        make("method.mining_epochs=6")
    with pytest.raises(UserError, match="choose histogram, conditional, metric"):
        make("method.mining=variance")
    with pytest.raises(UserError, match="'m9' is none of m1, m2"):
        make("method.weak=[m9]")
    with pytest.raises(UserError, match="at least two modalities"):
        make(num_modalities=1)


@pytest.mark.parametrize(
    ("batches", "every", "overrides", "fails"),
    [
        ([4], 1, [], False),
        ([0], 1, [], True),  # no validation split
        ([], 1, [], True),
        ([4], 3, [], False),  # after epoch 2, the first of the mining epochs
        ([4], 10, [], True),
        ([0], 1, ["method.weak=[m1]"], False),
    ],
)
def test_mining_needs_validation(batches: list[int], every: int, overrides: list[str], fails: bool) -> None:
    method = make(*overrides)
    method._trainer = SimpleNamespace(num_val_batches=batches, check_val_every_n_epoch=every)  # type: ignore[assignment]
    if not fails:
        method.start()
        return
    with pytest.raises(UserError, match="no validation would take place in epochs 2 to 4"):
        method.start()


def test_published_mining_distances() -> None:
    assert make().mining.distance == "histogram"
    assert make(task="segmentation").mining.distance == "metric"
    assert list(make().mining.when) == [2, 3, 4]
