"""Initialization of weights: each network's own, or one standard rule for all layers."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.LayerNorm)

_kaiming = partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu")
_truncated = partial(nn.init.trunc_normal_, std=0.02)

# Rule -> initializers of convolutions and of linear maps.
RULES: dict[str, Any] = {
    "kaiming": (_kaiming, nn.init.xavier_normal_),
    "xavier": (nn.init.xavier_normal_, nn.init.xavier_normal_),
    "truncated_normal": (_truncated, _truncated),
}


def keep_weights(network: nn.Module) -> nn.Module:
    """Exempt a network, such as a pretrained one, from `initialize`; return the network."""
    for module in network.modules():
        module.keeps_weights = True  # type: ignore[assignment]
    return network


def initialize(network: nn.Module, rule: str) -> None:
    """Redraw the weights of all convolutions and linear maps; set biases to 0, the scales of norms to 1.

    Embeddings, free parameters and modules that `keep_weights` exempts do not change.

    Args:
        network: the network, which is changed in place.
        rule: `default` changes nothing; `kaiming` draws convolutions Kaiming-normal (fan-out) and linear maps
            Xavier-normal; `xavier` draws both Xavier-normal; `truncated_normal` both with deviation 0.02.

    Source: `kaiming` is `weight_init` of OGM-GE's released code, which ARL, DGL, DMRNet and UDML took over.
    """
    if rule == "default":
        return
    convolution, linear = RULES[rule]
    for module in network.modules():
        if getattr(module, "keeps_weights", False):
            continue
        if isinstance(module, CONVOLUTIONS):
            convolution(module.weight)
        elif isinstance(module, nn.Linear):
            linear(module.weight)
        elif isinstance(module, NORMS) and module.weight is not None:
            nn.init.ones_(module.weight)
        if isinstance(module, (*CONVOLUTIONS, nn.Linear, *NORMS)) and isinstance(module.bias, Tensor):
            nn.init.zeros_(module.bias)
