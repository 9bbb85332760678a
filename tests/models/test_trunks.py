"""Fusions that begin inside the encoders."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.errors import UserError
from mmrobust.methods.base import Method
from mmrobust.models.stages import Staged, build_levels
from mmrobust.models.trunks import ESANet, Trunk
from mmrobust.testing import describe_data, make_batch


def make(*overrides: str, spec: DataSpec | None = None) -> Method:
    torch.manual_seed(0)
    spec = spec or describe_data(num_modalities=2, task="segmentation")
    method: Method = construct(
        compose_config(["method=dropout", "encoder.width=16", *overrides]).method, spec=spec
    )
    return method


def staged(count: int = 2, name: str = "tiny") -> dict[str, Staged]:
    width = 16 if name == "tiny" else None
    keys: dict[str, Any] = {
        "name": name,
        "pretrained": False,
        "weights": None,
        "norm": "batch",
        "width": width,
        "options": {},
    }
    encoders = {f"m{i}": build_levels(Modality("image", (3, 32, 32)), **keys) for i in range(count)}
    assert all(isinstance(e, Staged) for e in encoders.values())
    return encoders  # type: ignore[return-value]


def masks(*rows: list[int]) -> Tensor:
    return torch.tensor(rows).bool()


def test_esanet_by_hand() -> None:
    """Two modalities, each row another combination: the loop over levels, written out."""
    method = make("fusion=esanet").eval()
    fusion = method.fusion
    assert isinstance(fusion, ESANet)
    batch = make_batch(method.spec, size=3)
    available = masks([1, 1], [1, 0], [0, 1])
    with torch.no_grad():
        features = method.encode(batch)
        fused = fusion(features, available)
        levels = [*features["m2"].skips[::-1], features["m2"].deep]
        assert fusion.sums is not None
        for row, (first, second) in enumerate(available.tolist()):
            found = []
            carried = features["m1"].deep[row : row + 1]
            for level, gate in enumerate(fusion.own_gates):
                if level:
                    carried = fusion.trunk[level - 1](found[-1])
                other = fusion.sums[level].gates[0](levels[level][row : row + 1])  # type: ignore[index, union-attr]
                found.append(gate(carried) * first + other * second)
            torch.testing.assert_close(fused.deep[row], fusion.context(found[-1])[0])
            torch.testing.assert_close(fused.skips[0][row], found[1][0])
            torch.testing.assert_close(fused.skips[1][row], found[0][0])


def test_the_carriers_trunk_runs_for_rows_that_have_it_alone() -> None:
    method = make("fusion=esanet").eval()
    seen: list[int] = []
    for stage in method.fusion.trunk:  # type: ignore[union-attr]
        stage.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    batch = make_batch(method.spec, size=3)
    method.fuse(method.encode(batch), masks([1, 1], [1, 0], [0, 1]))
    assert seen == [2, 2]
    seen.clear()
    method.fuse(method.encode(batch), masks([0, 1], [0, 1], [0, 1]))
    assert seen == [0, 0]


@pytest.mark.parametrize("available", [[[0, 1]] * 3, [[1, 0], [0, 1], [0, 1]]], ids=["none", "one"])
def test_a_batch_with_hardly_any_carrier_trains(available: list[list[int]]) -> None:
    """BatchNorm has no variance of one row; DDP wants a gradient for every parameter."""
    method = make("fusion=esanet").train()
    batch = make_batch(method.spec, size=3)
    output = method.fuse(method.encode(batch), masks(*available))
    method.task.loss(output, batch.target).mean().backward()
    for name, p in method.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name


@pytest.mark.parametrize("fusion", ["pyramid", "esanet", "trunk"])
def test_pixels_of_an_absent_modality_change_nothing(fusion: str) -> None:
    task = "classification" if fusion == "trunk" else "segmentation"
    method = make(f"fusion={fusion}", spec=describe_data(num_modalities=3, task=task)).eval()
    batch = make_batch(method.spec, size=2)
    for i, m in enumerate(method.modalities):
        available = torch.ones(2, 3).bool()
        available[:, i] = False
        other = replace(batch, inputs=batch.inputs | {m: torch.randn_like(batch.inputs[m])})
        with torch.no_grad():
            a, b = (method.fuse(method.encode(x), available).logits for x in (batch, other))
            complete = method.fuse(method.encode(other), torch.ones(2, 3).bool()).logits
        assert torch.equal(a, b)
        assert not torch.allclose(a, complete)


def test_esanet_takes_the_published_network_apart() -> None:
    encoders = staged(name="resnet18")
    fusion = ESANet(encoders, bins=[1, 5], width=None, norm="batch")
    assert [len(e.stages) for e in encoders.values()] == [1, 5]
    assert len(fusion.trunk) == 4
    assert (fusion.width, fusion.skip_widths, fusion.stride) == (512, [256, 128, 64], 4)
    assert all(isinstance(p, nn.Identity) for p in fusion.projections["m1"])  # type: ignore[union-attr]


def test_trunk_is_the_published_classifier() -> None:
    """SURF: ResNet-18 to its second stage, squeeze and excitation, 3 x 128 channels into the third."""
    encoders = staged(3, "resnet18")
    trunk = Trunk(encoders, stages=2)
    assert [len(e.stages) for e in encoders.values()] == [4, 4, 4]  # stem, two stages, the gate
    assert trunk.width == 512
    first = trunk.layers[0][0]  # type: ignore[index]
    assert first.conv1.weight.shape == (256, 384, 3, 3)
    assert first.downsample[0].weight.shape == (256, 384, 1, 1)
    assert first.conv2.weight.shape == (256, 256, 3, 3)
    maps = {m: e(torch.randn(2, 3, 112, 112)) for m, e in encoders.items()}
    assert {tuple(x.shape) for x in maps.values()} == {(2, 128, 14, 14)}
    assert trunk(maps, torch.ones(2, 3).bool()).shape == (2, 512, 4, 4)


def test_a_trunk_of_inverted_residuals() -> None:
    """A stage may be made of several stages; the first block of the first is what reads the encoders' maps."""
    encoders = staged(3, "tf_efficientnet_lite0")
    trunk = Trunk(encoders, stages=2)
    assert [e.width for e in encoders.values()] == [40, 40, 40]
    wide = [m for m in trunk.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3 * 40]
    assert [tuple(m.weight.shape) for m in wide] == [(240, 120, 1, 1)]
    maps = {m: e(torch.randn(2, 3, 64, 64)) for m, e in encoders.items()}
    assert trunk(maps, torch.ones(2, 3).bool()).shape == (2, 320, 2, 2)


def test_mmanets_regularizer_is_a_second_trunk() -> None:
    method = make("method=mmanet", "fusion=trunk", spec=describe_data(num_modalities=3))
    assert isinstance(method.regularizer, Trunk)
    own, other = (next(t.parameters()) for t in (method.fusion, method.regularizer))
    assert own.shape == other.shape
    assert not torch.equal(own, other)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["fusion=trunk", "fusion.stages=3"], "choose 1 to 2"),
        (["fusion=trunk", "encoder=resnet18"], "encoder.width=16 projects the end"),
        (
            ["fusion=trunk", "encoder=timm", "encoder.name=hrnet_w18_small", "encoder.width=null"],
            "does not allow",
        ),
        (["fusion=esanet"], "does segmentation, but the dataset's task is classification"),
    ],
    ids=str,
)
def test_mistakes(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(*overrides, spec=describe_data(num_modalities=2))


def test_esanet_sums_maps_of_one_size_only() -> None:
    encoders = staged()
    encoders["m1"].strides = [4, 8, 16]
    with pytest.raises(UserError, match="strides differ"):
        partial(ESANet, bins=[1], width=None, norm="batch")(encoders)
