"""Which numbers a key may have, wherever it is set. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from math import inf

# Of whole numbers.
LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Range:
    """The numbers that a key may have, or a list of it may hold.

    Args:
        least, most: its ends.
        above, below: the same, where they are no part of it.
        null: whether null may stand where the default is a number.
    """

    least: float = -inf
    most: float = inf
    above: float = -inf
    below: float = inf
    null: bool = False

    def outside(self, value: float) -> str | None:
        """How a number lies outside, in words."""
        if value < self.least:
            return f"is below {self.least}"
        if value > self.most:
            return f"is above {self.most}"
        if value <= self.above:
            return f"is not above {self.above}"
        return f"is not below {self.below}" if value >= self.below else None


SEED = Range(least=0, most=LARGEST)
COUNT, COUNT_OR_NULL = Range(least=1), Range(least=1, null=True)
NOT_NEGATIVE, POSITIVE = Range(least=0), Range(above=0)
SHARE, LESS_THAN_ALL = Range(least=0, most=1), Range(least=0, below=1)
PIXELS = Range(least=1, most=2**15)
LABEL = Range(least=-(2**31), most=2**31 - 1, null=True)

# A star stands for any groups and letters; the first that fits a key counts.
RANGES = {
    **dict.fromkeys(("seed", "data.seed", "data.run_seed", "missing.seed", "noise.seed", "method.seed"), SEED),
    **dict.fromkeys(("sweep.seed", "sweep.seeds"), SEED),
    # data
    "data.batch_size": COUNT,
    "data.workers": Range(least=0, most=256),
    "data.num_classes": Range(least=2, most=10_000),
    "data.num_modalities": Range(least=1, most=62),
    "data.num_val": NOT_NEGATIVE,
    **dict.fromkeys(("data.num_train", "data.num_test", "data.size", "data.variants*"), COUNT),
    **dict.fromkeys(("data.clarity*", "data.shared"), SHARE),
    **dict.fromkeys(("data.validation", "data.test", "data.jitter"), LESS_THAN_ALL),
    **dict.fromkeys(("data.seconds", "data.tiled", "data.scale"), POSITIVE),
    **dict.fromkeys(("data.image_size", "data.scene_size"), PIXELS),
    **dict.fromkeys(("data.classes", "data.inspect", "data.pairs", "data.fixed_images"), COUNT),
    **dict.fromkeys(("data.fps", "data.frames", "data.*sample_rate", "data.hop", "data.resolution"), COUNT),
    **dict.fromkeys(("data.skeleton_steps", "data.inertial_steps"), COUNT),
    "data.n_fft": Range(least=2),
    "data.min_frames": NOT_NEGATIVE,
    "data.image_noise": NOT_NEGATIVE,
    "data.audio_snr": Range(least=-200, most=200, null=True),
    **dict.fromkeys(("data.ignore_index", "data.label_offset"), LABEL),
    **dict.fromkeys(("data.modalities.*.size", "data.modalities.*.unit", "data.modalities.*.std"), POSITIVE),
    # protocols
    **dict.fromkeys(("noise.*.probability", "noise.*.density", "noise.*.start"), SHARE),
    "noise.*.level": Range(least=0, most=11),
    # networks
    "encoder*.width": COUNT_OR_NULL,
    "encoder*.lr_factor": NOT_NEGATIVE,
    **dict.fromkeys(("encoder*.widths", "encoder*.blocks"), COUNT),
    **dict.fromkeys(("fusion.width", "fusion.bins", "fusion.stages"), COUNT),
    **{f"encoder*.options.{name}": COUNT for name in ("depth", "heads", "tokens", "vocabulary")},
    **dict.fromkeys(("encoder*.options.dropout", "method.*dropout"), LESS_THAN_ALL),
    # methods
    **dict.fromkeys(("method.*weight", "method.alpha", "method.beta", "method.clean_level"), NOT_NEGATIVE),
    **dict.fromkeys(("method.*epochs", "method.start", "method.warm_up", "method.distillation_from"), NOT_NEGATIVE),
    "method.end": Range(least=0, null=True),
    **dict.fromkeys(("method.*temperature", "method.max_std", "method.max_exponent"), POSITIVE),
    "method.max_log_variance": POSITIVE,
    **dict.fromkeys(("method.*width", "method.hidden", "method.bins", "method.depth", "method.heads"), COUNT),
    **dict.fromkeys(("method.chunk", "method.max_networks", "method.max_places", "method.side"), COUNT),
    "method.places": COUNT_OR_NULL,
    **dict.fromkeys(("method.momentum", "method.reliance.ema"), LESS_THAN_ALL),
    "method.reliance.init": NOT_NEGATIVE,
    "method.entropy_floor": Range(above=0, most=1),
    "method.weights_from": SHARE,
    # optimization
    **dict.fromkeys(("optimizer.lr", "optimizer.weight_decay", "schedule.eta_min"), NOT_NEGATIVE),
    **dict.fromkeys(("optimizer.momentum", "schedule.gamma", "schedule.pct_start"), SHARE),
    **dict.fromkeys(("schedule.T_max", "schedule.step_size", "schedule.total_steps"), COUNT),
    **dict.fromkeys(("schedule.milestones", "schedule.total_iters", "schedule.warmup"), NOT_NEGATIVE),
    **dict.fromkeys(("schedule.factor", "schedule.div_factor", "schedule.final_div_factor"), POSITIVE),
    # the trainer; -1: no limit
    **dict.fromkeys(("trainer.num_nodes", "trainer.log_every_n_steps", "trainer.accumulate_grad_batches"), COUNT),
    "trainer.check_val_every_n_epoch": COUNT_OR_NULL,
    **dict.fromkeys(("trainer.max_epochs", "trainer.max_steps", "trainer.num_sanity_val_steps"), Range(least=-1)),
    **dict.fromkeys(("trainer.limit_*", "trainer.overfit_batches", "trainer.min_*"), NOT_NEGATIVE),
    **dict.fromkeys(("trainer.gradient_clip_val", "trainer.reload_dataloaders_*"), NOT_NEGATIVE),
    # the rest
    "max_combinations": COUNT_OR_NULL,
    "threads": COUNT,
    "launch.jobs_per_device": COUNT,
    **dict.fromkeys(("sweep.trials", "sweep.parallel"), COUNT),
    "sweep.startup_*": NOT_NEGATIVE,
    **dict.fromkeys(("callbacks.*.patience", "callbacks.*.min_delta", "metrics.*.thresholds"), NOT_NEGATIVE),
    **dict.fromkeys(("metrics.*.n_bins", "metrics.*.num_*"), COUNT),
}  # fmt: skip


@cache
def range_of(key: str) -> Range | None:
    """What numbers this key may have; None: any."""
    return next((numbers for name, numbers in RANGES.items() if fnmatch(key, name)), None)


# Of the trainer, null is Lightning's own default.
NULL = ("trainer.*", *(name for name, numbers in RANGES.items() if numbers.null))


def may_be_null(key: str) -> bool:
    """Whether null may stand where the default is a number or a list."""
    return any(fnmatch(key, name) for name in NULL)
