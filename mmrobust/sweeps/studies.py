"""Searches: Optuna chooses hyper-parameters by validation scores, a launcher runs the trials.

A trial is an ordinary run, in the folder that its configuration names. So one that was interrupted goes on with the
same values when the command is repeated; and what is drawn depends on nothing but the sampler's seed, the trial's
number and the trials before it: an interrupted study ends as an undisturbed one does.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from mmrobust.config.identity import config_hash
from mmrobust.config.overrides import as_override, key_of
from mmrobust.errors import UserError, masked
from mmrobust.evaluation.results import ended_early, read_results
from mmrobust.sweeps.storage import compare, finished, found, load, study_folder, without_password
from mmrobust.tasks.metric import direction, primary_metric
from mmrobust.training.locks import locked

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from mmrobust.sweeps.jobs import Outcome

    Launch = Callable[[Sequence[Sequence[str]]], list[Outcome]]

TUNED = ("study.trials", "study.chosen")
DIRECTIONS = {"max": "maximize", "min": "minimize"}


@dataclass(frozen=True)
class Search:
    """A study, and what its trials run.

    Args:
        study: with the trials so far.
        space: key -> what may be chosen for it.
        fixed: the overrides that all trials have.
        options: the configuration's `sweep`.
        storage: where the study lies, for the processes that run trials.
    """

    study: Study
    space: dict[str, BaseDistribution]
    fixed: list[str]
    options: DictConfig
    storage: str

    def advance(self, launch: Launch) -> list[Outcome]:
        """Run trials until there are as many as asked for, first those that were begun.

        Returns:
            The failed ones. They stay unfinished, so that the next time they are run again.
        """
        failed: list[Outcome] = []
        tried: set[int] = set()
        while batch := self._next(tried):
            tried |= {trial.number for trial in batch}
            numbers = ", ".join(str(trial.number + 1) for trial in batch)
            print(f"study {self.study.study_name}: trial {numbers} of {self.options.trials}", flush=True)
            first = {tuple(chosen(trial)): trial for trial in reversed(batch)}  # of equal ones
            jobs = {key: i for i, key in enumerate(first)}
            outcomes = {o.number: o for o in launch([self.overrides(trial) for trial in first.values()])}
            for trial in batch:
                outcome = outcomes[jobs[tuple(chosen(trial))]]
                if outcome.status == "failed":
                    failed.append(outcome)
                else:
                    self._tell(trial, Path(str(outcome.folder)))
        return failed

    def _next(self, tried: set[int]) -> list[FrozenTrial]:
        """The trials to run now: those without an end, and new ones to fill the batch."""
        trials, size = self.study.get_trials(deepcopy=False), self.options.parallel
        batch = [t for t in trials if not t.state.is_finished() and t.number not in tried][:size]
        full = -(-len(trials) // size) if batch else len(trials) // size + 1
        return batch + [self._draw() for _ in range(len(trials), min(self.options.trials, full * size))]

    def overrides(self, trial: FrozenTrial) -> list[str]:
        """Those of a trial's run. The last tells the run which trial it is, and does not change its numbers."""
        told = {
            "name": self.study.study_name,
            "storage": without_password(self.storage),
            "trial": trial.number,
        }
        if self.options.pruner:
            names = ("pruner", "startup_trials", "startup_epochs")
            told["pruner"] = {name: self.options[name] for name in names}
        return [*self.fixed, *chosen(trial), f"study={as_override(told)}"]

    def _draw(self) -> FrozenTrial:
        """A new trial; it is stored whole or not at all, and its sampler knows nothing of the draws before."""
        import optuna

        known = self.study.get_trials(deepcopy=False)
        sampler = make_sampler(self.options, len(known))
        draft = optuna.create_study(direction=self.study.direction, sampler=sampler)
        draft.add_trials(known)
        drawn = draft.ask(self.space).params
        trial = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params={key: _short(drawn[key], kind) for key, kind in self.space.items()},
            distributions=self.space,
        )
        self.study.add_trial(trial)
        return self.study.get_trials(deepcopy=False)[-1]

    def _tell(self, trial: FrozenTrial, folder: Path) -> None:
        from optuna.trial import TrialState

        results = read_results(folder)
        if ended_early(folder):  # samplers take it to be worse than any with a score
            self.study.tell(trial.number, state=TrialState.PRUNED)
        else:
            self.study.tell(trial.number, objective(results, folder, self.study.direction.name.lower()))

    def best(self) -> FrozenTrial:
        """Raises: UserError: no trial is complete."""
        try:
            return self.study.best_trial
        except ValueError as error:
            raise UserError(
                f"no trial of study {self.study.study_name} is complete; look at its runs, give sweep.trials more, or "
                "another space and sweep.name"
            ) from error

    def report(self, config_dir: str | None) -> None:
        """Print how many trials there are, the best one, and how to run it with other seeds."""
        trials, best = self.study.get_trials(deepcopy=False), self.best()
        states = [trial.state.name for trial in trials]
        print(
            f"study {self.study.study_name} in {masked(self.storage)}: {states.count('COMPLETE')} trials complete, "
            f"{states.count('PRUNED')} pruned or diverged, {len(trials) - finished(self.study)} without an end"
        )
        print(f"best: trial {best.number + 1}, validation score {best.value:.4f}")
        for text in chosen(best):
            print(f"  {text}")
        kept = [text for text in self.fixed if key_of(text) != "seed"]
        options = ["--config-dir", config_dir] if config_dir else []
        words = [*options, *kept, *chosen(best), "seed=1,2,3", *tuned(self.study, best)]
        print(f"run it: python -m mmrobust.run -m {shlex.join(words)}", flush=True)


@contextmanager
def opened(given: Sequence[str], config: DictConfig, name: str | None = None) -> Iterator[Search]:
    """The study of a command line, which is made if there is none, and locked.

    Args:
        given: all overrides, those that list values included.
        config: what the first value of each gives.
        name: of the study, if not that of `sweep.name`.

    Raises:
        UserError: Optuna is missing; nothing to search, or what must not be; a storage that cannot be read; a study
            of another space or configuration; another process runs it.
    """
    study = found(given, config, name)
    where = f"study {study.name} in {masked(study.storage)}"
    lock = study_folder(config) / f"{study.name}.lock"
    with locked(lock, refused=f"{where} is being run by another process; wait for it"):
        metric = primary_metric(config.data)
        goal = DIRECTIONS[config.sweep.direction or direction(metric)]
        stored = load(study.storage, study.name, goal)
        compare(stored, study.space, study.fixed, config_hash(config), study.storage)
        yield Search(stored, study.space, study.fixed, config.sweep, study.storage)


def make_sampler(options: DictConfig, number: int) -> BaseSampler:
    """The sampler of the trial with this number."""
    from optuna import samplers

    seed = (options.seed * 1_000_003 + number) % 2**32
    if options.sampler == "tpe":  # running trials count as bad, so that a batch spreads
        return samplers.TPESampler(seed=seed, constant_liar=options.parallel > 1)
    if options.sampler == "gp":
        return samplers.GPSampler(seed=seed)
    return samplers.RandomSampler(seed=seed)


def chosen(trial: FrozenTrial) -> list[str]:
    """The overrides that a trial stands for."""
    return [f"{key}={value}" for key, value in trial.params.items()]


def tuned(study: Study, best: FrozenTrial) -> list[str]:
    """The overrides that tell a run how its values were chosen."""
    return [f"study.trials={finished(study)}", f"study.chosen=[{','.join(best.params)}]"]


def _short(value: Any, kind: BaseDistribution) -> Any:
    """A number with six digits, which is what is searched, run and shown alike."""
    from optuna.distributions import FloatDistribution

    if not isinstance(kind, FloatDistribution):
        return value
    return min(max(float(f"{value:.6g}"), kind.low), kind.high)


def objective(results: dict[str, Any], folder: Path, direction: str) -> float:
    """A run's validation score, of the checkpoint that was tested.

    Raises:
        UserError: it has none, or it is one that is better the other way round.
    """
    value = (results.get("selection") or {}).get("value")
    if value is None:
        raise UserError(
            f"{folder} has no validation score to search by; remove the folder to have it run again"
        )
    theirs = results["primary"]["direction"]
    if DIRECTIONS[theirs] != direction:
        raise UserError(
            f"{results['primary']['metric']} of {folder} is to be {DIRECTIONS[theirs]}d, the study is to {direction}; "
            f"begin a new one with sweep.direction={theirs} sweep.name=<name>"
        )
    return float(value)
