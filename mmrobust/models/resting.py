"""Temporary freezing of parts of a network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn


def rest(network: nn.Module, parts: Sequence[nn.Module]) -> None:
    """Put the network in training mode and the leaf layers of `parts` in eval mode, so that their running statistics do
    not change. Containers stay in training mode, because a decoder predicts at all resolutions only there."""
    if parts:
        network.train()
    for part in parts:
        for layer in part.modules():
            if not any(True for _ in layer.children()):
                layer.eval()


def drop_gradients(parts: Iterable[nn.Module]) -> None:
    """Set the parts' gradients to None. With zeros, momentum and weight decay would still change the weights."""
    for part in parts:
        for p in part.parameters():
            p.grad = None
