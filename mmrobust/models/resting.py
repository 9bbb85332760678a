"""Parts of a network that do not learn for a while."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn


def rest(network: nn.Module, parts: Sequence[nn.Module]) -> None:
    """Of a network in training: the parts' layers in eval mode, so that running statistics stay; nothing if there are no
    parts. What holds layers stays in training, in which a decoder also predicts on its way up."""
    if parts:
        network.train()
    for part in parts:
        for layer in part.modules():
            if not any(True for _ in layer.children()):
                layer.eval()


def drop_gradients(parts: Iterable[nn.Module]) -> None:
    """None, not zero, with which momentum and weight decay would go on."""
    for part in parts:
        for p in part.parameters():
            p.grad = None
