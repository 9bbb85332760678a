"""ShaSpec against its equations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.methods.shaspec import ShaSpec, fill_in_turn, fill_with_mean
from mmrobust.testing import check_method, describe_data, make_batch, step

RELEASED = ("method.as_released.sequential_fill=true", "method.as_released.neighbouring_pairs=true")


def make(*overrides: str, num_modalities: int = 3, kinds: tuple[str, ...] = ("vector",)) -> ShaSpec:
    torch.manual_seed(0)
    config = compose_config(["method=shaspec", "encoder.width=8", "method.width=4", *overrides]).method
    method: ShaSpec = construct(config, spec=describe_data(num_modalities=num_modalities, kinds=kinds))
    return method


SHARED = {m: torch.full((4, 1), x) for m, x in (("a", 1.0), ("b", 3.0), ("c", 8.0))}
AVAILABLE = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 1], [1, 0, 0]]).bool()


def test_absent_shared_features_are_the_mean_of_the_available_ones() -> None:
    filled = torch.cat(fill_with_mean(SHARED, AVAILABLE), 1)
    expected = torch.tensor([[1, 3, 8], [5.5, 3, 8], [8, 8, 8], [1, 1, 1]])
    torch.testing.assert_close(filled, expected)


def test_released_filling_in_turn() -> None:
    """Of two absent ones the first is filled with zeros for the second, the second with the filled first."""
    filled = torch.cat(fill_in_turn(SHARED, AVAILABLE), 1)
    expected = torch.tensor([[1, 3, 8], [5.5, 3, 8], [4, 6, 8], [1, 0.5, 0.75]])
    torch.testing.assert_close(filled, expected)


@pytest.mark.parametrize("fill", [fill_with_mean, fill_in_turn])
def test_filling_ignores_absent_content(fill) -> None:  # type: ignore[no-untyped-def]
    undefined = {m: torch.where(AVAILABLE[:, [i]], x, torch.nan) for i, (m, x) in enumerate(SHARED.items())}
    for first, second in zip(fill(SHARED, AVAILABLE), fill(undefined, AVAILABLE), strict=True):
        assert torch.equal(first, second)


def test_terms_are_the_papers() -> None:
    method = make("method.alignment_weight=0.5", "method.modality_weight=0.1").train()
    batch = make_batch(method.spec, size=16, complete=False)
    drawn = method.draw(batch)
    terms = method.losses(batch)
    with torch.no_grad():
        features = list(method.encode(batch).values())
        fused, alignment, modality = [], 0.0, []
        for row, (present, seen) in enumerate(zip(batch.available, drawn, strict=True)):
            shared = [f["shared"][row] for f in features]
            mean = torch.stack([h for h, p in zip(shared, seen, strict=True) if p]).mean(0)
            parts = []
            for f, h, p in zip(features, shared, seen, strict=True):
                s = f["specific"][row] if p else torch.zeros(4)
                parts.append(method.residual(torch.cat([s, h if p else mean])[None])[0] + s)
            fused.append(torch.cat(parts))
            pairs = [(a, b) for a in range(3) for b in range(a) if present[a] and present[b]]
            errors = [F.mse_loss(shared[a], shared[b]).item() for a, b in pairs]
            alignment += sum(errors) / max(len(errors), 1)
            for i, f in enumerate(features):
                if present[i]:
                    scores = method.modality_classifier(f["specific"][row])
                    modality.append(F.cross_entropy(scores, torch.tensor(i)).item())
        task = F.cross_entropy(method.head(torch.stack(fused)).logits, batch.target)
    torch.testing.assert_close(terms["task"].detach(), task)
    assert terms["alignment"].item() == pytest.approx(0.5 * alignment / 16, rel=1e-4)
    assert terms["modality"].item() == pytest.approx(0.1 * sum(modality) / len(modality), rel=1e-4)


def test_released_alignment_adds_up_neighbours() -> None:
    method = make("method.as_released.neighbouring_pairs=true", "method.alignment_weight=1").train()
    batch = make_batch(method.spec)
    a, b, c = (f["shared"].detach() for f in method.encode(batch).values())
    expected = F.mse_loss(a, b) + F.mse_loss(b, c)
    torch.testing.assert_close(method.losses(batch)["alignment"].detach(), expected)


def test_modalities_of_one_kind_and_shape_share_the_encoder() -> None:
    method = make(num_modalities=4, kinds=("vector", "image"))
    assert list(method.shared_encoders) == ["m1", "m2"]
    batch = make_batch(method.spec)
    batch.inputs["m3"] = batch.inputs["m1"].clone()
    features = method.encode(batch)
    assert torch.equal(features["m1"]["shared"], features["m3"]["shared"])
    assert not torch.allclose(features["m1"]["specific"], features["m3"]["specific"])


def test_equal_inputs_are_aligned_and_fill_each_other() -> None:
    """Of one input seen thrice, absent copies lose their specific feature alone."""
    method = make().eval()
    batch = make_batch(method.spec)
    for m in ("m2", "m3"):
        batch.inputs[m] = batch.inputs["m1"].clone()
    assert method.losses(batch)["alignment"] == 0
    features = method.encode(batch)
    shared = {m: f["shared"] for m, f in features.items()}
    for h in fill_with_mean(shared, torch.tensor([[True, False, False]]).expand(8, 3)):
        torch.testing.assert_close(h, shared["m1"])


def test_each_term_trains_its_own_branch() -> None:
    method = make().train()
    trained = {}
    for name in ("alignment", "modality"):
        method.zero_grad()
        method.losses(make_batch(method.spec))[name].backward()
        trained[name] = {n.split(".")[0] for n, p in method.named_parameters() if p.grad is not None}
    assert trained["alignment"] == {"shared_encoders", "shared_projections", "shared"}
    assert trained["modality"] == {"encoders", "projections", "modality_classifier"}


def test_one_modality_has_nothing_to_align() -> None:
    method = make(num_modalities=1)
    terms = step(method, make_batch(method.spec))
    assert terms["alignment"] == terms["modality"] == 0
    assert terms["task"] > 0


def test_released_behaviour_conforms() -> None:
    spec = describe_data(num_modalities=3, kinds=("vector",))
    check_method(lambda _: make(*RELEASED), spec)
