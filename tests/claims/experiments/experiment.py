"""An experiment: arms that are ordinary runs, a measure of a run, and claims that compare what was measured."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from mmrobust.config.compose import compose_config
from mmrobust.config.identity import run_folder
from mmrobust.config.trust import trusting
from mmrobust.evaluation.results import is_complete
from mmrobust.files import write_text
from mmrobust.training.lifecycle import execute
from mmrobust.training.terminal import as_job

ROOT = Path(__file__).parents[3]
CONF = Path(__file__).with_name("conf")  # of the control arms' methods
TABLES = ROOT / "results" / "claims"
SEEDS = (0, 1, 2)

Found = dict[tuple[str, int], dict[str, float]]  # (arm, seed) -> measure -> value


@dataclass(frozen=True)
class Claim:
    """That a measure of one arm exceeds that of another, or 0, with every seed.

    Args:
        text: what is claimed.
        measure: which measure.
        arm: where it should be larger.
        than: where it should be smaller; None: the measure is a gain by itself.
        margin: how much larger, on average.
    """

    text: str
    measure: str
    arm: str
    than: str | None = None
    margin: float = 0.5

    def gains(self, found: Found) -> list[float]:
        """One a seed."""
        return [
            found[self.arm, seed][self.measure]
            - (0 if self.than is None else found[self.than, seed][self.measure])
            for seed in SEEDS
        ]

    def verdict(self, found: Found) -> str:
        gains = self.gains(found)
        if min(gains) > 0 and fmean(gains) >= self.margin:
            return "shown"
        if max(gains) < 0 and fmean(gains) <= -self.margin:
            return "wrong"
        return "not shown"


@dataclass(frozen=True)
class Experiment:
    """What is compared, and how.

    Args:
        title: what it is about.
        setting: data, sizes, units, in words.
        common: overrides of `python -m mmrobust.run` for all arms; `{seed}` is the seed.
        arms: name -> further overrides.
        measure: of a complete run's folder, name -> value.
        shown: the measures that the text's table has.
        claims: what is decided.
    """

    title: str
    setting: str
    common: Sequence[str]
    arms: Mapping[str, Sequence[str]]
    measure: Callable[[Path], dict[str, float]]
    shown: Sequence[str]
    claims: Sequence[Claim]

    def run(self, table: Path, outputs: str) -> None:
        """Train and measure what is not complete yet. Remove the table to measure complete runs anew."""
        found = read(table)
        with trusting(["tests.claims"]):
            for number, (seed, arm) in enumerate((s, a) for s in SEEDS for a in self.arms):
                keys = [
                    *self.common,
                    *self.arms[arm],
                    "seed={seed}",
                    "logger=none",
                    "trainer.accelerator=cpu",
                ]
                overrides = [f"paths.outputs={outputs}", *(key.format(seed=seed) for key in keys)]
                config = compose_config(overrides, str(CONF))
                if (arm, seed) in found and is_complete(run_folder(config)):
                    continue
                print(f"{arm}, seed {seed}", flush=True)
                with as_job(number, parallel=False):
                    folder = execute(config, overrides, again=False, config_dir=str(CONF))
                found[arm, seed] = self.measure(folder)
                write(table, found)

    def complete(self, found: Found) -> bool:
        """Whether every arm has every seed."""
        return set(found) == {(arm, seed) for arm in self.arms for seed in SEEDS}

    def text(self, found: Found) -> str:
        """Markdown: the arms, the claims, mean ± standard deviation over the seeds."""
        lines = [f"### {self.title}", "", self.setting, ""]
        lines += [f"| | {' | '.join(self.shown)} |", f"| --- |{' ---: |' * len(self.shown)}"]
        for arm in self.arms:
            rows = [found[arm, seed] for seed in SEEDS]
            lines.append(f"| {arm} | {' | '.join(_cell([row.get(m) for row in rows]) for m in self.shown)} |")
        lines += ["", "| claim | gain | of the seeds | verdict |", "| --- | ---: | --- | --- |"]
        for claim in self.claims:
            gains = claim.gains(found)
            each = ", ".join(f"{gain:+.2f}" for gain in gains)
            lines.append(f"| {claim.text} | {fmean(gains):+.2f} | {each} | {claim.verdict(found)} |")
        return "\n".join(lines) + "\n"


def _cell(values: Sequence[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    return f"{fmean(numbers):.2f} ± {stdev(numbers):.2f}" if len(numbers) == len(values) else "–"


def read(table: Path) -> Found:
    """What was found; nothing if there is no table."""
    found: Found = {}
    if table.is_file():
        with table.open(newline="") as file:
            for row in csv.DictReader(file):
                found.setdefault((row["arm"], int(row["seed"])), {})[row["measure"]] = float(row["value"])
    return found


def write(table: Path, found: Found) -> None:
    """One line for every arm, seed and measure."""
    lines = ["arm,seed,measure,value"]
    for (arm, seed), values in found.items():
        lines += [f'"{arm}",{seed},{measure},{value:.6g}' for measure, value in values.items()]
    table.parent.mkdir(parents=True, exist_ok=True)
    write_text(table, "\n".join(lines) + "\n")
