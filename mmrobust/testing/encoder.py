"""What every encoder must fulfil."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from mmrobust.data.spec import Modality


def check_encoder(build: Callable[[Modality], nn.Module], modality: Modality) -> None:
    """Check an encoder on random samples: features (B, width) or (B, width, ...), row by row in eval mode.

    Args:
        build: makes the encoder of a modality; raises a UserError for a kind that it does not read.
        modality: kind and shape of the samples.
    """
    torch.manual_seed(0)
    encoder = build(modality)
    x = modality.traits.made_up(8, modality.shape, torch.Generator().manual_seed(0))
    features = encoder.train()(x)
    width = encoder.width
    assert features.shape[:2] == (len(x), width), (
        f"features have shape {tuple(features.shape)}, not ({len(x)}, {width}) or ({len(x)}, {width}, ...): batch first, "
        "then `width` channels"
    )
    assert features.isfinite().all(), "features are not finite"
    features.sum().backward()
    unused = [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused, (
        f"the parameter {unused[0]} got no gradient: under DDP that fails; use it, freeze it or leave it out"
    )
    with torch.no_grad():
        first, second, alone = encoder.eval()(x), encoder(x), encoder(x[3:4])
    assert torch.equal(first, second), "two passes in eval mode differ: something is drawn at inference"
    error = (first[3] - alone[0]).abs().max().item()
    assert error < 1e-4, f"a sample's features depend on its batch (differ by {error:.2g} when alone)"
