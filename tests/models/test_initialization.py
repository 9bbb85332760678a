"""Initial weights by rule."""

from __future__ import annotations

import math

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from mmrobust.config.compose import compose_config, conf_folder
from mmrobust.config.keys import KEYS
from mmrobust.models.initialization import RULES, initialize, keep_weights
from mmrobust.testing import describe_data
from mmrobust.training.session import build_method


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(64, 128, 3), nn.BatchNorm2d(128), nn.Flatten(), nn.Linear(512, 256))


@pytest.mark.parametrize(
    ("rule", "convolution", "linear"),
    [
        # gain² / fan_out with gain² = 2 for ReLU; 2 / (fan_in + fan_out)
        ("kaiming", math.sqrt(2 / (128 * 9)), math.sqrt(2 / (512 + 256))),
        ("xavier", math.sqrt(2 / (64 * 9 + 128 * 9)), math.sqrt(2 / (512 + 256))),
        ("truncated_normal", 0.02, 0.02),
    ],
)
def test_a_rule_draws_with_its_deviation(rule: str, convolution: float, linear: float) -> None:
    layers = network()
    nn.init.constant_(layers[1].weight, 0)  # as timm leaves the last norm of a residual branch
    initialize(layers, rule)
    assert layers[0].weight.std().item() == pytest.approx(convolution, rel=0.03)
    assert layers[3].weight.std().item() == pytest.approx(linear, rel=0.03)
    assert not layers[0].bias.any()
    assert not layers[3].bias.any()
    assert (layers[1].weight == 1).all()


def test_default_changes_nothing() -> None:
    layers, same = network(), network().state_dict()
    initialize(layers, "default")
    assert all(torch.equal(x, same[k]) for k, x in layers.state_dict().items())


def test_what_is_pretrained_keeps_its_weights() -> None:
    layers, same = network(), network().state_dict()
    keep_weights(layers[0])
    initialize(layers, "kaiming")
    assert torch.equal(layers[0].weight, same["0.weight"])
    assert not torch.equal(layers[3].weight, same["3.weight"])


def test_the_key_names_these_rules() -> None:
    assert {*KEYS["init"].choices} == {"default", *RULES}


def test_the_audio_visual_recipes_begin_as_released() -> None:
    """With each network's own weights they stay at chance, which `test_dmrnet_released.py` takes minutes to show."""
    assert OmegaConf.load(conf_folder() / "experiment/recipe/audio_visual.yaml").init == "kaiming"


def test_a_run_draws_all_its_layers_by_the_rule() -> None:
    """Not the encoders alone: DMRNet's maps and its head, too."""
    spec = describe_data(num_modalities=2, kinds=("vector",))
    config = compose_config(["method=dmrnet", "encoder.width=64", "init=kaiming"])
    method = build_method(config, spec)
    for linear in (method.mean.linear, method.log_variance.linear, method.head):
        fan_out, fan_in = linear.weight.shape
        assert linear.weight.std().item() == pytest.approx(math.sqrt(2 / (fan_in + fan_out)), rel=0.15)
        assert not linear.bias.any()
    assert torch.equal(method.head.weight, build_method(config, spec).head.weight)
