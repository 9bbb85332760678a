"""The search space of a sweep's command line: fixed values, lists, ranges and intervals, in Hydra's syntax.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra import compose
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mmrobust.config.compose import compose_config, our_hydra, search_override
from mmrobust.config.groups import with_globs
from mmrobust.config.overrides import first, key_of, parse, root, text_of, texts
from mmrobust.errors import UserError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

# Keys of the sweep itself, which are not passed to its jobs.
OF_THE_SWEEP = ("sweep", "hydra", "plan")
# Keys whose configuration files may declare swept values.
DECLARE = ("sweep", "hydra", "experiment")


def of_jobs(given: Sequence[str]) -> list[Override]:
    """The parsed overrides that jobs get: all but those of the sweep itself."""
    return [parse(text) for text in given if root(text) not in OF_THE_SWEEP]


def firsts(given: Sequence[str]) -> list[str]:
    """The overrides of the first job: each with the first of its values."""
    return [first(o) for o in of_jobs(given)]


def first_job(given: Sequence[str]) -> list[str]:
    """The sweep's own overrides, followed by those of the first job."""
    return [*(text for text in given if root(text) in OF_THE_SWEEP), *firsts(given)]


def reference(given: Sequence[str], config_dir: str | None) -> DictConfig:
    """The configuration of the first job, with the keys of `sweep`."""
    own = [text for text in given if root(text) in ("sweep", "plan")]
    return compose_config([*own, *firsts(given)], config_dir)


def with_declared(given: Sequence[str], config_dir: str | None) -> list[str]:
    """Add the swept values that the configuration declares, in `sweep.space` and Hydra's `hydra.sweeper.params`.

    The command line has precedence. Globs become lists.

    Args:
        given: overrides that are not checked yet; if they cannot be composed, nothing is added.
        config_dir: the user's folder of further configurations.

    Raises:
        UserError: a glob matches nothing, or a file declares a key that only the command line may set.
    """
    given = with_globs(given, config_dir)
    declaring = [text for text in given if root(text) in DECLARE]
    try:
        one = [*(t for t in declaring if root(t) in OF_THE_SWEEP), *firsts(declaring)]
        with our_hydra():
            config = compose("config", [*one, *search_override(config_dir)], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException):
        return given
    declared: dict[str, Any] = {**(config.hydra.sweeper.get("params") or {}), **config.sweep.space}
    decided = {key_of(text) for text in given}
    if foreign := [key for key in declared if root(key) in ("hydra", "allow")]:
        raise UserError(f"a file declares {', '.join(foreign)} to be swept; give that on the command line")
    more = [f"{key}={_listed(value)}" for key, value in declared.items() if key not in decided]
    return [*given, *with_globs(more, config_dir)]


def _listed(value: Any) -> str:
    """A declared value in command-line syntax; a YAML list becomes a list of swept values."""
    return str(value) if isinstance(value, str | int | float) or value is None else ",".join(map(str, value))


def require_lists(overrides: Sequence[Override]) -> None:
    """Require that every swept override lists its values.

    Raises:
        UserError: an override is an interval, which has no list of values.
    """
    intervals = [
        text_of(o) for o in overrides if o.is_sweep_override() and isinstance(o.value(), IntervalSweep)
    ]
    if intervals:
        raise UserError(
            f"{', '.join(intervals)}: an interval has no list of values; add sweep=optuna, which chooses within it, or "
            "list the values"
        )


def distributions(overrides: Sequence[Override]) -> dict[str, BaseDistribution]:
    """Key -> Optuna's distribution, for every override with several values.

    Lists are categorical, with values as texts of the command line. Intervals and ranges are numeric; `tag(log, ...)`
    makes their scale logarithmic.

    Raises:
        UserError: Optuna refuses a range or interval.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    space: dict[str, BaseDistribution] = {}
    for o in overrides:
        if not o.is_sweep_override():
            continue
        value: Any = o.value()
        numbers = isinstance(value, IntervalSweep | RangeSweep)
        if not numbers:
            space[o.get_key_element()] = CategoricalDistribution(texts(o))
            continue
        kind = IntDistribution if all(map(_whole, texts(o))) else FloatDistribution
        ends = [int(text) if kind is IntDistribution else float(text) for text in texts(o)]
        low, high = (ends[0], ends[-1]) if isinstance(value, IntervalSweep) else (min(ends), max(ends))
        keys: dict[str, Any] = {"log": "log" in value.tags}
        if isinstance(value, RangeSweep) and (kind is IntDistribution or not keys["log"]):
            keys["step"] = abs(value.step)
        try:
            space[o.get_key_element()] = kind(low, high, **keys)  # type: ignore[arg-type]
        except ValueError as error:
            raise UserError(f"{text_of(o)} cannot be searched: {error}") from error
    return space


def _whole(text: str) -> bool:
    return text.lstrip("-").isdigit()


def grid(given: Sequence[str]) -> list[list[str]]:
    """The overrides of every job: the Cartesian product of the listed values, without the sweep's own overrides.

    Raises:
        UserError: an override is an interval, which has no list of values.
    """
    parsed = of_jobs(given)
    require_lists(parsed)
    (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [list(job) for job in jobs]
