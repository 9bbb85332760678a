"""Which classes may stand at which place of a configuration. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Role:
    """What may be built at a place.

    Args:
        name: in words.
        bases: classes by their full names; it must be a subclass of one of them.
        within: packages and modules where it may lie, beside those that the command line allows.
        functions: those that may stand in for a class.
    """

    name: str
    bases: tuple[str, ...]
    within: tuple[str, ...]
    functions: tuple[str, ...] = ()


METHOD = Role("a Method", ("mmrobust.methods.base.Method",), ("mmrobust.methods.",))
DATA = Role("a DataModule", ("mmrobust.data.base.DataModule",), ("mmrobust.data.",))
MISSING = Role("a pattern of missing modalities", ("mmrobust.missing.Complete",), ("mmrobust.missing.",))
NOISE = Role("a pattern of noise", ("mmrobust.data.noise.Clean",), ("mmrobust.data.noise.",))
NETWORK = Role(
    "an nn.Module",
    ("torch.nn.modules.module.Module",),
    ("mmrobust.models.", "mmrobust.methods.", "torch.nn.", "torchvision.", "timm."),
)
OPTIMIZER = Role("an Optimizer", ("torch.optim.optimizer.Optimizer",), ("torch.optim.", "timm."))
SCHEDULE = Role(
    "an LRScheduler",
    ("torch.optim.lr_scheduler.LRScheduler",),
    ("torch.optim.lr_scheduler.", "mmrobust.schedules."),
    functions=("mmrobust.schedules.warmup_steps",),
)
CALLBACK = Role(
    "a Callback",
    ("lightning.pytorch.callbacks.callback.Callback",),
    ("lightning.pytorch.callbacks.", "mmrobust."),
)
LOGGER = Role(
    "a Logger",
    ("lightning.pytorch.loggers.logger.Logger",),
    ("lightning.pytorch.loggers.", "mmrobust.loggers."),
)
METRIC = Role("a Metric", ("torchmetrics.metric.Metric",), ("torchmetrics.", "mmrobust."))
HYDRA_CALLBACK = Role(
    "a Callback of Hydra's",
    ("hydra.experimental.callback.Callback",),
    ("mmrobust.sweeps.", "hydra.experimental."),
)
HYDRA_PLUGIN = Role(
    "a plugin of Hydra's",
    ("hydra.plugins.plugin.Plugin",),
    ("hydra._internal.core_plugins.", "hydra_plugins."),
)

# Which role a place asks for; `*` is any one key.
PLACES = {
    "method": METHOD,
    "method.fusion": NETWORK,
    "method.optimizer": OPTIMIZER,
    "method.schedule": SCHEDULE,
    "fusion": NETWORK,
    "encoder.name": NETWORK,
    "encoder.*.name": NETWORK,
    "method.encoder.name": NETWORK,
    "method.encoder.*.name": NETWORK,
    "optimizer": OPTIMIZER,
    "schedule": SCHEDULE,
    "data": DATA,
    "data.missing.*": MISSING,
    "data.noise.*": NOISE,
    "missing.*": MISSING,
    "noise.*": NOISE,
    "callbacks.*": CALLBACK,
    "logger.*": LOGGER,
    "metrics.*": METRIC,
    "hydra.callbacks.*": HYDRA_CALLBACK,
    "hydra.launcher": HYDRA_PLUGIN,
    "hydra.sweeper": HYDRA_PLUGIN,
}

_ROLES = [role for place, role in PLACES.items() if not place.startswith("hydra")]

# What an argument may be, of whatever stands at a place of its own.
ARGUMENT = Role(
    "a class that a run is made of",
    tuple(dict.fromkeys(base for role in _ROLES for base in role.bases)),
    tuple(dict.fromkeys(prefix for role in _ROLES for prefix in role.within)),
)


def role_of(key: str) -> Role:
    """The role that a place asks for whose class this key names; of one inside another's arguments, any."""
    return PLACES.get(_place(key.removesuffix("._target_")), ARGUMENT)


def _place(key: str) -> str:
    """The place that a key lies at, as PLACES has it."""
    parts = key.split(".")
    for place in PLACES:
        wanted = place.split(".")
        if len(wanted) == len(parts) and all(w in ("*", p) for w, p in zip(wanted, parts, strict=True)):
            return place
    return ""
