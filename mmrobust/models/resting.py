"""Parts of a network that do not learn for a while."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn


def rest(network: nn.Module, parts: Sequence[nn.Module]) -> None:
    """Of a network in training: the parts in eval mode, so that running statistics stay; nothing if there are none."""
    if parts:
        network.train()
    for part in parts:
        part.eval()


def drop_gradients(parts: Iterable[nn.Module]) -> None:
    """None, not zero, with which momentum and weight decay would go on."""
    for part in parts:
        for p in part.parameters():
            p.grad = None
