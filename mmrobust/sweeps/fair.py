"""A comparison with equal tuning: a study of the same size for every method, then fresh seeds with the best values."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from mmrobust.config.check import check_command_line
from mmrobust.config.overrides import key_of, texts
from mmrobust.errors import UserError
from mmrobust.sweeps.jobs import Outcome
from mmrobust.sweeps.space import of_jobs, reference, with_declared
from mmrobust.sweeps.storage import default_name
from mmrobust.sweeps.studies import TUNED, chosen, opened, tuned

if TYPE_CHECKING:
    from mmrobust.sweeps.studies import Launch


def fair(given: Sequence[str], config_dir: str | None, config: DictConfig, launch: Launch) -> list[Outcome]:
    """Search for every method, then run the best values of each with the seeds of `sweep.seeds`.

    Args:
        given, config_dir: as of `sweep`.
        config: what the first value of everything listed gives.
        launch: runs jobs.

    Returns:
        The outcomes of the final runs, the failed trials, and the searches that found nothing.

    Raises:
        UserError: no methods are listed; one has no space; a seed of the final runs is the trials'.
    """
    seeds = fresh_seeds(config)
    outcomes, jobs = [], []
    with ExitStack() as stack:
        searches = []
        for line, one, name in studies(given, config_dir, config):  # all are checked before the first runs
            searches.append(stack.enter_context(opened(line, one, name)))
        for search in searches:
            outcomes += search.advance(launch)
            try:
                best = search.best()
            except UserError as error:
                outcomes.append(Outcome(len(outcomes), search.fixed, "failed", None, str(error)))
                continue
            print(
                f"study {search.study.study_name}: best {' '.join(chosen(best))}, {best.value:.4f}",
                flush=True,
            )
            kept = [text for text in search.fixed if key_of(text) not in ("seed", *TUNED)]
            jobs += [[*kept, *chosen(best), f"seed={seed}", *tuned(search.study, best)] for seed in seeds]
    print(f"{len(jobs)} runs with the best values, seeds {', '.join(map(str, seeds))}", flush=True)
    return [*outcomes, *launch(jobs)]


def studies(
    given: Sequence[str], config_dir: str | None, config: DictConfig
) -> list[tuple[list[str], DictConfig, str]]:
    """Of every method: the command line of its study, what its first values give, and the study's name."""
    found = []
    for line in by_method(given, config_dir):
        one = reference(line, config_dir)
        name = config.sweep.name and f"{config.sweep.name}_{one.choices.method}"
        found.append((line, one, name or default_name(one, {})))
    return found


def by_method(given: Sequence[str], config_dir: str | None) -> list[list[str]]:
    """The command lines of the studies: one method each, with its space.

    Raises:
        UserError: no method is named, or one has no space.
    """
    methods = [name for o in of_jobs(given) if o.key_or_group == "method" for name in texts(o)]
    if not methods:
        raise UserError("sweep=fair compares methods; name them: method=dropout,mmanet,dmrnet")
    others = [text for text in given if key_of(text) not in ("method", "sweep/space")]
    lines = []
    for method in dict.fromkeys(methods):
        line = [*others, f"method={method}", f"sweep/space={method}"]
        line = with_declared(line, config_dir)
        try:
            check_command_line(line, config_dir, multirun=True)
        except UserError as error:
            raise UserError(
                f"sweep=fair, method={method}: {str(error).rstrip('?.')}. Each method needs a space, sweep/space/<method>.yaml: ours in "
                "conf/, yours in --config-dir"
            ) from error
        lines.append(line)
    return lines


def fresh_seeds(config: DictConfig) -> list[int]:
    """Raises: UserError: there are none, one is no number, comes twice, or is the trials' own."""
    seeds = OmegaConf.to_container(config.sweep.seeds) if OmegaConf.is_list(config.sweep.seeds) else []
    assert isinstance(seeds, list)
    if not seeds or not all(type(s) is int and s >= 0 for s in seeds) or len({*seeds}) < len(seeds):
        raise UserError(
            f"sweep.seeds={config.sweep.seeds} is no list of different seeds; write sweep.seeds=[1,2,3]"
        )
    if config.seed in seeds:
        raise UserError(
            f"sweep.seeds={seeds} has seed={config.seed}, with which the trials run; the values were chosen by it, so take "
            "seeds that no trial had"
        )
    return seeds
