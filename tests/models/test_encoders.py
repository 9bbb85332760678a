"""Encoders: every kind of modality, channels first, a width, batches of one."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmrobust.data.spec import Modality
from mmrobust.errors import UserError
from mmrobust.models.encoders import PointwiseLinear, build_encoder, running_statistics, scatter_rows

IMAGE = Modality("image", (3, 32, 32))


def encoder(modality: Modality = IMAGE, **keys: Any) -> nn.Module:
    torch.manual_seed(0)
    base = {
        "name": "tiny",
        "pretrained": False,
        "weights": None,
        "norm": "batch",
        "width": None,
        "options": {},
    }
    if keys.get("name", "tiny") == "tiny":
        base["width"] = 16
    return build_encoder(modality, **(base | keys))


def draw(modality: Modality, size: int = 2) -> Tensor:
    return torch.randn(size, *modality.shape, generator=torch.Generator().manual_seed(0))


class Mine(nn.Module):
    """A user's encoder."""

    def __init__(self, modality: Modality, *, pretrained: bool, norm: str, scale: float) -> None:
        super().__init__()
        self.width, self.scale = modality.shape[0], scale
        self.told = (modality.kind, pretrained, norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x


# Tiny


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("kind", "places", "expected"),
    [
        ("image", (32, 32), (4, 4)),
        ("image", (9, 5), (1, 1)),
        ("spectrogram", (40, 17), (5, 2)),
        ("sequence", (40,), (5,)),
        ("video", (2, 32, 32), (4, 4)),
        ("vector", (), ()),
    ],
)
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_tiny(
    kind: str, places: tuple[int, ...], expected: tuple[int, ...], channels: int, norm: str
) -> None:
    modality = Modality(kind, (channels, *places))
    network = encoder(modality, norm=norm, width=20)
    assert network.width == 20
    assert network(draw(modality)).shape == (2, 20, *expected)


@pytest.mark.parametrize("width", [1, 3, 48])
def test_tiny_of_any_width(width: int) -> None:
    for norm in ("batch", "group"):
        assert encoder(width=width, norm=norm)(draw(IMAGE)).shape[1] == width


@pytest.mark.parametrize(("channels", "width"), [(4, 16), (3, 6), (1, 3)])
def test_the_size_of_tinys_map_does_not_depend_on_the_channels(channels: int, width: int) -> None:
    modality = Modality("image", (channels, 4, 4))  # enough with the kernels 5, 3, 3
    assert encoder(modality, width=width)(draw(modality)).shape == (2, width, 1, 1)


# timm


@pytest.mark.parametrize(
    ("name", "size", "options", "expected"),
    [
        ("resnet18", 64, {}, (512, 2, 2)),
        ("test_efficientnet", 64, {}, (256, 2, 2)),
        ("mobilenetv3_small_050", 64, {}, (1024, 2, 2)),  # widens its map once more
        ("test_convnext", 64, {}, (64, 2, 2)),
        ("test_vit", 32, {"img_size": 32}, (64, 5)),  # four patches and a class token
        ("swin_tiny_patch4_window7_224", 64, {"img_size": 64}, (768, 2, 2)),  # channels last inside
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_timm_gives_channels_first(
    name: str, size: int, options: dict[str, Any], expected: tuple[int, ...], channels: int
) -> None:
    modality = Modality("spectrogram", (channels, size, size))
    network = encoder(modality, name=name, options=options).eval()
    assert network(draw(modality)).shape == (2, *expected)
    assert network.width == expected[0]


def test_a_vision_transformer() -> None:
    network = encoder(name="vit_tiny_patch16_224", options={"img_size": 32}, width=24)
    assert network(draw(IMAGE)).shape == (2, 24, 5)


@pytest.mark.parametrize("name", ["resnet18", "test_efficientnet", "tiny"])
def test_group_norm_leaves_no_batch_norm_and_trains_on_one_sample(name: str) -> None:
    assert batch_norms(encoder(name=name)) != []
    network = encoder(name=name, norm="group").train()
    assert batch_norms(network) == []
    network(draw(IMAGE, 1)).square().mean().backward()
    gradients = [p.grad for p in network.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)


def batch_norms(network: nn.Module) -> list[nn.Module]:
    return [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def test_group_norm_keeps_the_activations_behind_it() -> None:
    """timm's norms may hold an activation: as many with GroupNorm as with BatchNorm."""
    counts = []
    for norm in ("batch", "group"):
        network = encoder(name="test_efficientnet", norm=norm)
        counts.append(sum(isinstance(m, nn.SiLU) for m in network.modules()))
    assert counts[0] == counts[1] > 0


# What all share


@pytest.mark.parametrize(("name", "own"), [("test_resnet", 96), ("tests.models.test_encoders.Mine", 3)])
def test_width_adds_a_projection_only_where_it_differs(name: str, own: int) -> None:
    options = {"scale": 2.0} if name.endswith("Mine") else {}
    for width in (None, own, 7):
        network = encoder(name=name, width=width, options=options)
        assert network.width == (width or own) == network(draw(IMAGE)).shape[1]
        assert any(isinstance(m, PointwiseLinear) for m in network.modules()) == (width == 7)


def test_a_class_of_the_users() -> None:
    network = encoder(name="tests.models.test_encoders.Mine", norm="group", options={"scale": 3.0})
    assert isinstance(network, Mine)
    assert network.told == ("image", False, "group")
    assert torch.equal(network(draw(IMAGE)), 3 * draw(IMAGE))


@pytest.mark.parametrize("name", ["tiny", "test_resnet"])
def test_a_video_is_the_mean_over_its_frames(name: str) -> None:
    video = Modality("video", (3, 4, 32, 32))
    network, image = encoder(video, name=name).eval(), encoder(IMAGE, name=name).eval()
    image.load_state_dict({k.removeprefix("encoder."): x for k, x in network.state_dict().items()})
    x = draw(video, 3)
    expected = torch.stack([image(frame) for frame in x.unbind(2)]).mean(0)
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)


def test_pointwise_linear_is_the_same_at_every_place() -> None:
    linear, x = PointwiseLinear(3, 5), torch.randn(2, 3, 4, 6)
    maps = linear(x)
    assert maps.shape == (2, 5, 4, 6)
    torch.testing.assert_close(maps[:, :, 1, 2], linear(x[:, :, 1, 2]))


def test_scatter_rows() -> None:
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    scattered = scatter_rows(torch.tensor([2, 0]), features, 4)
    assert scattered.tolist() == [[3, 4], [0, 0], [1, 2], [0, 0]]
    scattered[0].sum().backward()
    assert features.grad is not None
    assert features.grad.tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize("active", [True, False])
def test_running_statistics(active: bool) -> None:
    network = nn.Sequential(encoder(), nn.BatchNorm1d(3).eval())
    norms = batch_norms(network)
    frozen, training = norms[-1], norms[:-1]
    with running_statistics(network, active):
        assert [norm.training for norm in training] == [not active] * 3
        assert network[0].training
    assert [norm.training for norm in training] == [True] * 3
    assert not frozen.training  # what was frozen stays so
    with running_statistics(network, active):
        network[0](draw(IMAGE, 1))
    seen = [norm.num_batches_tracked.item() for norm in training]
    assert seen == [0 if active else 1] * 3


# Errors


@pytest.mark.parametrize(
    ("modality", "keys", "message"),
    [
        (IMAGE, {"norm": "layer"}, "'layer' is not known; choose batch or group"),
        (IMAGE, {"width": None}, "'tiny' needs encoder.width"),
        (IMAGE, {"pretrained": True}, "'tiny' has no pretrained weights"),
        (Modality("vector", (5,)), {"name": "resnet18"}, "'resnet18' reads images, depth and spectrograms, not vectors"),
        (Modality("sequence", (1, 40)), {"name": "resnet18"}, "not sequences"),
        (IMAGE, {"name": "resnet1"}, "no model 'resnet1'; did you mean .*resnet18"),
        (IMAGE, {"name": "resnet18", "pretrained": True}, "(?s)pretrained weights of 'resnet18' could not be had.*HF_HOME.*pretrained=false"),
    ],
)  # fmt: skip
def test_errors(modality: Modality, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        encoder(modality, **keys)


@pytest.mark.parametrize("name", ["resnet19", "resnte18", "vit_tiny_patch16_225"])
def test_a_mistyped_name_gets_a_suggestion(name: str) -> None:
    with pytest.raises(UserError, match="did you mean"):
        encoder(name=name)


@pytest.mark.parametrize("name", ["tests.models.test_encoders.Nobody", "no_such_package.Encoder"])
def test_a_class_that_does_not_exist(name: str) -> None:
    with pytest.raises(UserError, match=name):
        encoder(name=name)


@pytest.mark.parametrize("name", ["tiny", "resnet18"])
def test_an_option_that_does_not_exist(name: str) -> None:
    with pytest.raises(UserError, match=r"encoder\.options"):
        encoder(name=name, options={"foo": 1})


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_model_of_one_size_is_made_for_the_input(name: str) -> None:
    for modality in (Modality("image", (3, 64, 64)), Modality("spectrogram", (1, 64, 96))):
        keys: dict[str, Any] = {"norm": "batch", "width": 8, "options": {}}
        encoder = build_encoder(modality, name=name, pretrained=False, weights=None, **keys)
        assert encoder(torch.zeros(2, *modality.shape)).shape[:2] == (2, 8)
