"""MMFormer: which tokens there are, which are attended to, what the unimodal losses look at."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.errors import UserError
from mmrobust.methods.mmformer import MMFormer
from mmrobust.testing import check_method, describe_data, make_batch, step

KINDS = ("image", "vector", "sequence")
SMALL = ("encoder.width=8", "method.width=8", "method.heads=2", "method.mlp_width=16")
RELEASED = "method.as_released.constant_tokens=true"


def make(*overrides: str, spec: DataSpec | None = None) -> MMFormer:
    torch.manual_seed(0)
    config = compose_config(["method=mmformer", *SMALL, "method.dropout=0", *overrides]).method
    method: MMFormer = construct(config, spec=spec or describe_data(num_modalities=3, kinds=KINDS))
    return method


@pytest.mark.parametrize(
    ("side", "tokens"), [(14, (16, 1, 5)), (3, (9, 1, 5)), (2, (4, 1, 4)), (1, (1, 1, 1))]
)
def test_every_place_is_a_token_up_to_a_limit(side: int, tokens: tuple[int, ...]) -> None:
    method = make(f"method.side={side}").eval()
    assert tuple(method.tokens.values()) == tokens
    batch = make_batch(method.spec)
    features = method.encode(batch)
    assert tuple(f["tokens"].shape for f in features.values()) == tuple((8, n, 8) for n in tokens)
    assert method(batch).logits.shape == (8, 4)


def test_the_constructor_leaves_the_encoders_alone() -> None:
    method = make()
    assert all(encoder.training for encoder in method.encoders.values())
    assert all(int(b) == 0 for name, b in method.named_buffers() if name.endswith("num_batches_tracked"))


def test_prediction_step_by_step() -> None:
    """Two present modalities of three: attention among their tokens alone, zeros for the third afterwards."""
    method = make().eval()
    batch = make_batch(method.spec)
    available = torch.tensor([[True, False, True]]).expand(8, 3)
    with torch.no_grad():
        features = method.encode(batch)
        image, _, sequence = (f["tokens"] for f in features.values())
        where = method.positions_across
        together = method.across(torch.cat([image + where[:16], sequence + where[17:]], 1))
        tokens = torch.cat([together[:, :16], torch.zeros(8, 1, 8), together[:, 16:]], 1)
        restored = torch.einsum("bti,ot->boi", tokens, method.restore.weight) + method.restore.bias[:, None]
        expected = method.head(restored.mean(1)).logits
        torch.testing.assert_close(method.fuse(features, available).logits, expected)


def test_released_tokens_are_constants() -> None:
    """Absent tokens take part, as the modality's transformer makes them of zeros."""
    method = make(RELEASED).eval()
    batch = make_batch(method.spec)
    with torch.no_grad():
        features = method.encode(batch)
        zeros = dict(features)
        zeros["m1"] = features["m1"] | {
            "tokens": method.within["m1"](method.positions["m1"][None]).expand(8, -1, -1)
        }
        everything = torch.ones(8, 3).bool()
        expected = method.fuse(zeros, everything).logits
        without = torch.tensor([[False, True, True]]).expand(8, 3)
        torch.testing.assert_close(method.fuse(features, without).logits, expected)
        other = make()
        other.load_state_dict(method.state_dict())
        correct = other.eval().fuse(features, without).logits
    assert not torch.allclose(correct, expected, atol=1e-3)


def test_unimodal_losses_see_what_is_available_not_what_is_drawn() -> None:
    method = make("method.auxiliary_weight=0.3").train()
    batch = make_batch(method.spec, size=16, complete=False)
    assert (batch.available & ~method.draw(batch)).any()
    terms = method.losses(batch)
    with torch.no_grad():
        for i, (m, features) in enumerate(method.encode(batch).items()):
            rows = batch.available[:, i]
            logits = method.auxiliary_head(features["map"]).logits[rows]
            expected = 0.3 * F.cross_entropy(logits, batch.target[rows], reduction="sum") / 16
            torch.testing.assert_close(terms[m].detach(), expected)


def test_the_unimodal_losses_do_not_train_the_transformers() -> None:
    method = make().train()
    terms = method.losses(make_batch(method.spec))
    terms["m1"].backward()
    trained = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None}
    assert trained == {"encoders", "projections", "auxiliary_head"}


def test_maps_of_different_sizes_can_be_segmented() -> None:
    modalities = {"m1": Modality("image", (3, 32, 32)), "m2": Modality("image", (1, 48, 32))}
    spec = DataSpec(task="segmentation", num_classes=4, num_train=64, modalities=modalities)
    method = make(spec=spec)
    assert method.places == {"m1": (4, 4), "m2": (6, 4)}
    assert method.largest == (6, 4)
    batch = make_batch(spec)
    assert method(batch).logits.shape == (8, 4, 32, 32)
    assert all(term.isfinite() for term in step(method, batch).values())


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_released_tokens_conform(task: str) -> None:
    kinds = KINDS if task == "classification" else ("image",)
    check_method(
        lambda spec: make(RELEASED, spec=spec), describe_data(num_modalities=2, kinds=kinds, task=task)
    )


def test_one_modality() -> None:
    check_method(lambda spec: make(spec=spec), describe_data(num_modalities=1))


def test_mistakes() -> None:
    with pytest.raises(UserError, match=r"method\.side=0 leaves no token"):
        make("method.side=0")
    with pytest.raises(UserError, match="3 attention heads do not divide"):
        make("method.heads=3")
