"""DMRNet's training as one would write it by hand: of the framework it uses the networks' layers alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrobust.batch import Batch


def autocast(device: str) -> Any:
    return torch.autocast("cuda", torch.bfloat16) if device == "cuda" else nullcontext()


def plain_steps(
    net: Any,
    batches: Sequence[Batch],
    optimizer_keys: Mapping[str, Any],
    device: str,
    loss_of: Callable[..., Tensor] | None = None,
) -> Callable[[], None]:
    """A function that takes the next step of training, as one would write it by hand."""
    optimizer = torch.optim.AdamW(net.train().parameters(), **optimizer_keys)
    mined = torch.zeros(2, 2 ** len(net.encoders), device=device)
    done = 0

    def step() -> None:
        nonlocal done
        batch = batches[done % len(batches)]
        done += 1
        inputs = {name: x.to(device, non_blocking=True) for name, x in batch.inputs.items()}
        target = batch.target.to(device, non_blocking=True)
        code = torch.randint(1, 2 ** len(inputs), (len(target), 1), device=device)
        mask = (code >> torch.arange(len(inputs), device=device)) & 1 == 1
        optimizer.zero_grad()
        with autocast(device):
            loss = (loss_of or plain_loss)(net, inputs, target, mask, mined)
        loss.backward()
        optimizer.step()

    return step


def plain_loss(net: Any, inputs: dict[str, Tensor], target: Tensor, mask: Tensor, mined: Tensor) -> Tensor:
    """DMRNet's loss in its first epochs, which observe variances and regularise nothing yet. `net`: for its layers."""
    features = [net.encoders[name](x).flatten(2).mean(2) for name, x in inputs.items()]
    fused = torch.cat([torch.where(mask[:, i, None], x, 0) for i, x in enumerate(features)], 1)
    mean, log_variance = net.mean(fused), net.log_variance(fused).clamp(-10, 10)
    z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
    losses = F.cross_entropy(net.head(z).logits, target, reduction="none")
    kl = 0.5 * (log_variance.exp() + mean**2 - log_variance - 1).sum(1).mean()
    variance = log_variance.detach().float().exp().mean(1)
    code = (mask * 2 ** torch.arange(len(inputs), device=mask.device)).sum(1)
    mined.index_add_(1, code, torch.stack([variance, torch.ones_like(variance)]))
    return losses.mean() + 1e-3 * kl + (torch.zeros_like(losses) * losses).mean()
