"""Weights from a file: whose they must be, what is told of them, and the pixels that they were trained on."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.data.files.images import normalised
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.errors import UserError
from mmrobust.models.encoders import build_encoder
from mmrobust.models.pretraining import read_weights
from mmrobust.models.stages import build_levels
from mmrobust.testing import step
from mmrobust.training.session import build_method

DATA = Path(os.environ.get("MMROBUST_DATA", "data"))
NETWORK = "tf_efficientnet_lite0"  # mean and deviation 0.5
REAL = Path(os.environ.get("MMROBUST_WEIGHTS", DATA.parent / "weights")) / f"{NETWORK}.safetensors"
IMAGE, DEPTH = Modality("image", (3, 64, 64)), Modality("depth", (1, 64, 64))


def keys(weights: Path | None = None, name: str = "resnet18", **more: Any) -> dict[str, Any]:
    weights_key = None if weights is None else str(weights)
    base = {"name": name, "pretrained": False, "weights": weights_key, "norm": "batch", "width": None}
    return {**base, "options": {}, **more}


def states(network: nn.Module) -> dict[str, Tensor]:
    """With statistics that no new network has."""
    torch.manual_seed(1)
    return {k: torch.rand_like(x) if x.is_floating_point() else x for k, x in network.state_dict().items()}


@pytest.fixture(scope="module")
def resnet() -> dict[str, Tensor]:
    return states(timm.create_model("resnet18"))


@pytest.fixture
def file(resnet: dict[str, Tensor], tmp_path: Path) -> Path:
    save_file(resnet, tmp_path / "resnet18.safetensors")
    return tmp_path / "resnet18.safetensors"


class Mine(nn.Module):
    """A user's encoder."""

    def __init__(self, modality: Modality, *, pretrained: bool, norm: str) -> None:
        super().__init__()
        self.width, self.layer = 4, nn.Conv2d(modality.shape[0], 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


# What is loaded


def test_a_file_is_loaded_without_its_classifier_which_is_told(
    file: Path, resnet: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        network = build_encoder(IMAGE, **keys(file)).network
    loaded = network.state_dict()
    assert resnet.keys() - loaded.keys() == {"fc.weight", "fc.bias"}
    assert all(torch.equal(x, resnet[key]) for key, x in loaded.items())
    assert "its classifier (fc.bias, fc.weight) is left out" in caplog.text
    assert "state_dict" not in network.pretrained_cfg


def test_levels_are_those_of_the_file(
    file: Path, resnet: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    levels = build_levels(IMAGE, **keys(file)).eval()
    # No warning of timm's, which does not know that all was checked.
    assert [record for record in caplog.records if not record.name.startswith("mmrobust")] == []
    whole = timm.create_model("resnet18", num_classes=0, global_pool="")
    whole.load_state_dict({k: x for k, x in resnet.items() if not k.startswith("fc.")})
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(levels.levels(x)[-1], whole.eval()(x))


def test_torchvisions_keys_and_training_checkpoints(tmp_path: Path) -> None:
    state = states(torchvision.models.resnet18())
    for i, saved in enumerate(
        (state, {"state_dict": state, "epoch": 3}, {f"module.{k}": x for k, x in state.items()})
    ):
        torch.save(saved, tmp_path / f"{i}.pth")
        network = build_encoder(IMAGE, **keys(tmp_path / f"{i}.pth")).network
        assert torch.equal(network.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])


@pytest.mark.parametrize("build", [build_encoder, build_levels])
def test_a_stem_of_one_channel_is_the_sum_of_three(
    build: Callable[..., nn.Module], file: Path, resnet: dict[str, Tensor]
) -> None:
    stems = [m for m in build(DEPTH, **keys(file)).modules() if isinstance(m, nn.Conv2d)]
    torch.testing.assert_close(stems[0].weight, resnet["conv1.weight"].sum(1, keepdim=True))


def test_a_networks_own_class(tmp_path: Path) -> None:
    name, path = f"{__name__}.Mine", tmp_path / "mine.pth"
    state = states(Mine(IMAGE, pretrained=False, norm="batch"))
    torch.save(state, path)
    for build in (build_encoder, build_levels):
        assert any(
            torch.equal(p, state["layer.weight"]) for p in build(IMAGE, **keys(path, name)).parameters()
        )
    with pytest.raises(UserError, match=r"does not fit Mine: size mismatch for layer.weight"):
        build_encoder(DEPTH, **keys(path, name))


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_init_does_not_draw_them_anew(task: str, file: Path, resnet: dict[str, Tensor]) -> None:
    """And one modality may have a file, another not."""
    spec = DataSpec(task, 4, 8, {"m1": IMAGE, "m2": IMAGE})
    overrides = ["method=fusion", "data=synthetic", "encoder=resnet18", "init=xavier"]
    method = build_method(compose_config([*overrides, f"encoder.m1.weights={file}"]), spec)
    stem = {m: next(x for x in e.modules() if isinstance(x, nn.Conv2d)) for m, e in method.encoders.items()}
    assert torch.equal(stem["m1"].weight, resnet["conv1.weight"])
    assert not torch.equal(stem["m2"].weight, resnet["conv1.weight"])


# The pixels


@pytest.mark.parametrize("build", [build_encoder, build_levels])
def test_pixels_are_scaled_as_in_the_pretraining(build: Callable[..., nn.Module], tmp_path: Path) -> None:
    network = timm.create_model(NETWORK)
    save_file(network.state_dict(), tmp_path / "lite.safetensors")
    encoder = build(IMAGE, **keys(tmp_path / "lite.safetensors", NETWORK)).eval()
    pixels = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8).numpy()
    theirs = (torch.from_numpy(pixels).float() / 255 - 0.5) / 0.5
    seen = []
    stem = next(m for m in encoder.modules() if isinstance(m, nn.Conv2d))
    stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    getattr(encoder, "levels", encoder)(normalised(pixels)[None])
    torch.testing.assert_close(seen[0], theirs.movedim(-1, 0)[None])


def test_without_weights_nothing_is_scaled_nor_with_imagenets_own(file: Path) -> None:
    assert build_encoder(IMAGE, **keys(None, NETWORK)).scale is None
    assert build_encoder(IMAGE, **keys(file)).scale is None


def test_depth_is_not_scaled(tmp_path: Path) -> None:
    save_file(timm.create_model(NETWORK).state_dict(), tmp_path / "lite.safetensors")
    assert build_encoder(DEPTH, **keys(tmp_path / "lite.safetensors", NETWORK)).scale is None


# What is wrong


class Evil:
    def __reduce__(self) -> Any:
        return print, ("code was run",)


@pytest.mark.parametrize("build", [build_encoder, build_levels])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet34", r"(?s)does not fit resnet34: missing keys layer1\.2\..* and \d+ more.*set encoder\.name"),
        ("resnet10t", r"does not fit resnet10t: .*layer"),
        (NETWORK, "does not fit tf_efficientnet_lite0: missing keys conv_stem.weight.*; unexpected keys layer1"),
        ("tiny", r"the encoder 'tiny' has no weights to load; set encoder\.weights=null"),
    ],
)  # fmt: skip
def test_weights_of_another_network(
    build: Callable[..., nn.Module], name: str, message: str, file: Path
) -> None:
    with pytest.raises(UserError, match=message):
        build(IMAGE, **keys(file, name, width=8 if name == "tiny" else None))


def test_shapes_that_do_not_fit(file: Path, resnet: dict[str, Tensor]) -> None:
    save_file({**resnet, "layer2.0.conv1.weight": torch.zeros(7, 64, 3, 3)}, file)
    with pytest.raises(UserError, match=r"size mismatch for layer2\.0\.conv1\.weight.*\[7, 64, 3, 3\]"):
        build_encoder(IMAGE, **keys(file))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"\(0 bytes\) cannot be loaded: it is empty"),
        (b"<html>404</html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x93NUMPY" + bytes(99), "another kind of file"),
        (pickle.dumps(Evil()), "more than tensors and plain values, which is refused"),
    ],
)
def test_a_file_that_is_none(
    suffix: str, content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"w{suffix}").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_weights(str(tmp_path / f"w{suffix}"))
    assert str(caught.value).startswith(f"encoder.weights={tmp_path}/w{suffix}")
    assert capsys.readouterr().out == ""


def test_a_truncated_file_no_file_and_no_weights(file: Path, tmp_path: Path) -> None:
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="cut short"):
        read_weights(str(file))
    with pytest.raises(UserError, match="no such file"):
        read_weights(str(tmp_path / "nothing.pth"))
    for found, kind in ((torch.zeros(3), "Tensor"), ({"a": 1}, "dict"), ({}, "dict"), ([1], "list")):
        torch.save(found, tmp_path / "w.pth")
        with pytest.raises(UserError, match=f"holds {kind} and not weights by name"):
            read_weights(str(tmp_path / "w.pth"))


# Real weights, real frames


real_weights = pytest.mark.skipif(
    not REAL.is_file(),
    reason=f"{REAL} is absent; set MMROBUST_WEIGHTS, its folder, or MMROBUST_DATA, the one beside that",
)


@pytest.mark.data
@real_weights
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_real_weights(task: str) -> None:
    spec = DataSpec(task, 4, 8, {"rgb": IMAGE, "depth": DEPTH})
    overrides = ["method=fusion", "data=nyuv2", "encoder=timm", f"encoder.name={NETWORK}"]
    method = build_method(compose_config([*overrides, f"encoder.weights={REAL}"]), spec)
    stem = [next(x for x in e.modules() if isinstance(x, nn.Conv2d)) for e in method.encoders.values()]
    expected = read_weights(str(REAL))["conv_stem.weight"].float()
    assert torch.equal(stem[0].weight, expected)
    torch.testing.assert_close(stem[1].weight, expected.sum(1, keepdim=True), rtol=1e-3, atol=2e-3)


@pytest.mark.long
@pytest.mark.data
@real_weights
@pytest.mark.skipif(not (DATA / "nyuv2").is_dir(), reason=f"{DATA}/nyuv2 is absent; set MMROBUST_DATA")
def test_pretrained_beats_random_on_real_frames() -> None:
    """As fixed features: the loss on frames not seen before, within half an epoch of NYUv2, in which only what lies
    behind the encoders learns."""

    def loss(*more: str) -> float:
        small = ["data.image_size=[64,96]", "data.class_weights=none", "encoder/decoder=tiny"]
        whole = ["data.validation=0", "data.workers=0", f"paths.data={DATA}"]
        encoder = ["encoder=timm", f"encoder.name={NETWORK}", *more]
        config = compose_config(["method=fusion", "data=nyuv2", *small, *whole, *encoder])
        data = construct(config.data)
        data.setup()
        method = build_method(config, data.spec)
        encoders = {id(p) for p in method.encoders.parameters()}
        optimizer = torch.optim.AdamW([p for p in method.parameters() if id(p) not in encoders], lr=3e-3)
        losses = []
        for batch in islice(data.loader("train", shuffle=True), 50):
            losses.append(sum(float(term) for term in step(method, batch).values()))
            optimizer.step()
        return sum(losses[-20:])

    assert loss(f"encoder.weights={REAL}") < 0.97 * loss()
