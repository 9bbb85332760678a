"""Training whose weights, gradients and optimizer state are shared out over the devices (FSDP)."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.plugins.precision import FSDPPrecision
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import Optimizer

from mmrobust.errors import UserError
from mmrobust.methods.base import Method


def check_shardable(name: str, method: type[Method]) -> None:
    """Raises: UserError: a method of this class needs whole gradients or parameters, or steps of its own."""
    check_reading(name, method)
    reasons = {
        "updates": "takes several optimizer steps a batch",
        "modulate": "changes gradients, of which each device would hold a piece",
    }
    for hook, reason in reasons.items():
        if getattr(method, hook, None) is not getattr(Method, hook):
            raise UserError(f"method={name} {reason}, so trainer=fsdp cannot train it; take trainer=ddp")


def check_reading(name: str, method: Any) -> None:
    """Raises: UserError: a method, or all of this class, looks at parameters where they are shared out."""
    if method.reads_parameters:
        raise UserError(
            f"method={name} reads the parameters of its parts, of which each device would hold a piece, so trainer=fsdp "
            "cannot train it; take trainer=ddp"
        )


class Sharded(FSDPStrategy):
    """Lightning's, which also runs on CPUs, and leaves buffers as they are.

    Every encoder is a unit of its own; the rest of a method, whose parts are not called through `forward`, is
    gathered for the whole step. What is saved is the whole network, as if one device had trained it.

    Args:
        method: what is trained.
    """

    def __init__(self, method: Method, **keys: Any) -> None:
        check_reading(type(method).__name__.lower(), method)  # in the mode in which it was built
        units = set(whole_encoders(method))

        def wraps(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
            return recurse or module in units

        super().__init__(auto_wrap_policy=wraps, **keys)

    @property
    def mixed_precision_config(self) -> None:
        """None, for autocast is enough: Lightning's would round what methods count in buffers."""

    def _setup_model(self, model: nn.Module) -> nn.Module:
        device = {"device_id": self.root_device}  # Lightning's own index is none on the CPU
        sharded = FullyShardedDataParallel(
            model,
            cpu_offload=self.cpu_offload,
            sharding_strategy=self.sharding_strategy,
            **self.kwargs | device,
        )
        precision = self.precision_plugin
        assert isinstance(precision, ShardedPrecision)
        precision.sharded, precision.device_type = sharded, self.root_device.type
        return sharded


class ShardedPrecision(FSDPPrecision):
    """Lightning's, which also clips by the norm over all devices, casts on CPUs, and leaves buffers as they are."""

    sharded: FullyShardedDataParallel
    device_type: str

    def convert_module(self, module: nn.Module) -> nn.Module:
        return module  # Lightning's would make float32 of what methods sum up in float64

    def clip_grad_by_norm(self, optimizer: Optimizer, clip_val: float) -> None:
        self.sharded.clip_grad_norm_(clip_val)

    def forward_context(self) -> Any:
        if "mixed" not in self.precision:
            return super().forward_context()
        kind = torch.bfloat16 if self.precision == "bf16-mixed" else torch.float16
        return torch.autocast(self.device_type, dtype=kind)


def whole_encoders(method: Method) -> list[nn.Module]:
    """Those that share no parameter with anything else, as with a fusion that begins inside them."""
    owners: dict[nn.Parameter, set[str]] = {}
    for name, parameter in method.named_parameters(remove_duplicate=False):
        kind, _, rest = name.partition(".")
        owners.setdefault(parameter, set()).add(rest.partition(".")[0] if kind == "encoders" else "")
    return [
        encoder
        for m, encoder in method.encoders.items()
        if (parameters := list(encoder.parameters())) and all(owners[p] == {m} for p in parameters)
    ]
