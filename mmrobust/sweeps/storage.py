"""Where studies lie: Optuna's storages, opened with care, and what a study says that it searches."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig

from mmrobust.config.keys import NOT_IN_HASH
from mmrobust.config.overrides import key_of, text_of
from mmrobust.errors import UserError, masked
from mmrobust.sweeps.space import distributions, of_jobs

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage

STORAGE = "MMROBUST_STORAGE"  # names a storage with its password, for the processes that run trials
ATTRIBUTE = "mmrobust"  # of a study: what it searches
REMEDY = "Repeat its command, or give this one a study of its own: sweep.name=<name>"

CHOICES = {
    "sampler": ("tpe", "random", "gp"),
    "pruner": (None, "median", "successive_halving", "hyperband"),
    "direction": (None, "max", "min"),
}


def import_optuna() -> None:
    """Raises: UserError: it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise UserError(
            "sweeps that search (sweep=optuna, sweep=fair) need Optuna: pip install 'mmrobust[optuna]'"
        ) from error
    optuna.logging.set_verbosity(logging.WARNING)


def place(given: str | None, default: Path) -> str:
    """Where a study lies, so that every process finds it: a URL, or the absolute path of a journal file."""
    if given is None:
        return str(default)
    scheme, separator, rest = given.partition(":///")
    if scheme == "sqlite" and separator:
        return f"sqlite:///{Path(rest).resolve()}"
    return given if "://" in given else str(Path(given).resolve())


class Found(NamedTuple):
    """A study that a command line asks for: its name, where it lies, what it searches, the overrides of all trials."""

    name: str
    storage: str
    space: dict[str, BaseDistribution]
    fixed: list[str]


def found(given: Sequence[str], config: DictConfig, name: str | None) -> Found:
    """Arguments and errors as of `opened`, but nothing is made and nothing read."""
    import_optuna()
    overrides = of_jobs(given)
    space, fixed = distributions(overrides), [text_of(o) for o in overrides if not o.is_sweep_override()]
    check_search(space, config)
    name = name or config.sweep.name or default_name(config, space)
    return Found(name, place(config.sweep.storage, study_folder(config) / f"{name}.journal"), space, fixed)


def study_folder(config: DictConfig) -> Path:
    """Where studies and their locks lie."""
    return Path(config.paths.outputs).resolve() / "studies"


def check_search(space: dict[str, BaseDistribution], config: DictConfig) -> None:
    for key, known in CHOICES.items():
        if config.sweep[key] not in known:
            raise UserError(
                f"sweep.{key}={config.sweep[key]} is not known; choose {', '.join(str(k or 'null') for k in known)}"
            )
    if not space:
        raise UserError(
            "sweep=optuna has nothing to search: list values or an interval, such as optimizer.lr=tag(log,"
            "interval(1e-4,1e-2)), or take a method's own space, sweep/space=<method>"
        )
    if "seed" in space:
        raise UserError(
            f"sweep={config.sweep.kind}: seed is no hyper-parameter; give one, by which all trials run. Others are for the "
            "best values: run those with them, or sweep=fair with sweep.seeds=[1,2,3]"
        )
    if config.selection == "paper":
        raise UserError(
            f"sweep={config.sweep.kind}: selection=paper validates on the test split, which a search must not see; take "
            "selection=mean or last"
        )
    if config.trainer.limit_val_batches == 0 or config.data.get("validation") == 0:
        raise UserError(
            f"sweep={config.sweep.kind} searches by the validation score, and nothing is validated here"
        )
    if config.paths.run is not None:
        raise UserError(
            f"sweep={config.sweep.kind}: each trial needs a folder of its own; leave out paths.run"
        )


def default_name(config: DictConfig, space: dict[str, BaseDistribution]) -> str:
    """`<method>_<data>`, without those that are searched."""
    names = [str(config.choices[key]) for key in ("method", "data") if key not in space]
    return "_".join(names or ["study"])


def without_password(place: str) -> str:
    """What may be written down of a storage. Its whole address goes to the processes that this one starts."""
    if masked(place) != place:
        os.environ[STORAGE] = place
    return masked(place)


def open_storage(place: str) -> BaseStorage:
    """Optuna's storage; of one whose password is not written down the address is taken from the environment.

    Raises:
        UserError: it cannot be read.
    """
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        if "://" in place:
            whole = os.environ.get(STORAGE, place)
            return RDBStorage(whole if masked(whole) == place else place)
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(place))
    except Exception as error:  # whatever a database's driver raises
        cause = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
        raise UserError(
            f"the study's storage {place} cannot be read: {cause}; give another sweep.storage, or remove it"
        ) from error


def load(place: str, name: str, direction: str) -> Study:
    import optuna

    storage = open_storage(place)
    try:
        study = optuna.create_study(
            storage=storage, study_name=name, direction=direction, load_if_exists=True
        )
        study.get_trials(deepcopy=False)
    except Exception as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"study {name} in {place} cannot be read: {cause}; give another sweep.storage, or remove it"
        ) from error
    if study.direction.name.lower() != direction:
        raise UserError(
            f"study {name} in {place} is to {study.direction.name.lower()}, not to {direction}. {REMEDY}"
        )
    return study


def stored(place: str, name: str) -> Study | None:
    """A study, if there is one."""
    import optuna

    path = Path(place.removeprefix("sqlite:///"))
    if ("://" not in place or place.startswith("sqlite:///")) and not path.is_file():
        return None
    try:
        return optuna.load_study(study_name=name, storage=open_storage(place))
    except KeyError:
        return None


def finished(study: Study) -> int:
    """How many trials have come to an end, pruned and diverged ones included."""
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def compare(
    study: Study, space: dict[str, BaseDistribution], fixed: Sequence[str], config_hash: str, place: str
) -> None:
    """Raises: UserError: the study searches another space, or with another configuration, or has trials that are not of
    its space: what they say becomes part of a command line."""
    from optuna.distributions import distribution_to_json

    ours: dict[str, Any] = {
        "space": {key: distribution_to_json(kind) for key, kind in sorted(space.items())},
        "fixed": sorted({key_of(text): text for text in fixed if not _without_effect(text)}.values()),
        "configuration": config_hash,
    }
    theirs = study.user_attrs.get(ATTRIBUTE)
    if theirs is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(ATTRIBUTE, ours)
        return
    if theirs is None:
        raise UserError(f"study {study.study_name} in {place} was not made by a sweep of mmrobust. {REMEDY}")
    if theirs["space"] != ours["space"]:
        keys = sorted(
            k for k in theirs["space"] | ours["space"] if theirs["space"].get(k) != ours["space"].get(k)
        )
        raise UserError(
            f"study {study.study_name} in {place} searches another space: {', '.join(keys)} differ. {REMEDY}"
        )
    if theirs["configuration"] != config_hash:
        gone, new = (
            sorted({*a} - {*b})
            for a, b in ((theirs["fixed"], ours["fixed"]), (ours["fixed"], theirs["fixed"]))
        )
        raise UserError(
            f"study {study.study_name} in {place} has another configuration: it was made with "
            f"{' '.join(gone) or 'other defaults'}{f', not {chr(32).join(new)}' if new else ''}. {REMEDY}"
        )

    for trial in study.get_trials(deepcopy=False):
        foreign = [key for key, value in trial.params.items() if not _may_be(value, space.get(key))]
        if foreign:
            raise UserError(
                f"study {study.study_name} in {place} has a trial, {trial.number + 1}, with {', '.join(foreign)} outside the "
                f"space. {REMEDY}"
            )


def _may_be(value: Any, kind: BaseDistribution | None) -> bool:
    if kind is None:
        return False
    choices = getattr(kind, "choices", None)
    return value in choices if choices is not None else type(value) in (int, float)


def _without_effect(text: str) -> bool:
    return f"{key_of(text)}.".startswith(tuple(f"{key}." for key in NOT_IN_HASH))
