"""The checks of what a configuration names: built as in a run, a line for each."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from torch import nn

from mmrobust.config.build import construct
from mmrobust.data.base import DataModule
from mmrobust.data.spec import KINDS, DataSpec
from mmrobust.errors import UserError
from mmrobust.models.assembly import encoder_keys
from mmrobust.models.encoders import build_encoder
from mmrobust.tasks.registry import TASKS
from mmrobust.testing.dataset import dataset_checks
from mmrobust.testing.encoder import check_encoder
from mmrobust.testing.made_up import describe_data
from mmrobust.testing.method import method_checks

# The kinds of made-up modalities for a method, as far as its encoders read them.
USUAL = ("image", "spectrogram", "vector")

Check = Callable[[], None]


def check_named(config: DictConfig, named: Collection[str]) -> int:
    """Check the parts of a configuration that were named on the command line.

    Args:
        config: composed and checked.
        named: of method, fusion, encoder and data.

    Returns:
        0 if all checks hold, else 1.

    Raises:
        UserError: a part cannot be built at all.
    """
    # more only slow batches of eight down
    torch.set_num_threads(config.threads or 1)
    report, choices = Report(strict="data" in named), config.choices
    spec = None
    if "data" in named:
        data: DataModule = construct(config.data)
        data.setup()
        spec = data.spec
        report.run_all(f"data={choices.data}", dataset_checks(data))
        if set(named) == {"data"}:
            return report.status()
    kinds = check_encoders(config, spec, report, tell="encoder" in named)
    if "encoder" in named and not kinds:
        return report.status()
    specs = {choices.data: spec} if spec else made_up_specs(config, kinds)
    parts = ", ".join(f"{part}={choices[part]}" for part in ("method", "fusion", "encoder") if part in named)
    for label, described in specs.items():
        checks = method_checks(lambda spec: construct(config.method, spec=spec), described)
        report.run_all(f"{parts} on {label}", checks)
    return report.status()


def check_encoders(config: DictConfig, spec: DataSpec | None, report: Report, *, tell: bool) -> list[str]:
    """The kinds that the encoders read.

    Args:
        spec: the dataset's; None: a made-up modality of each kind.
        tell: whether the encoders are checked, beyond being built.
    """
    described = spec or describe_data(num_modalities=len(KINDS), kinds=list(KINDS))
    plain: Any = OmegaConf.to_container(config.encoder, resolve=True)
    kinds = []
    for m, keys in encoder_keys(plain, described).items():
        modality = described.modalities[m]
        build: Callable[..., nn.Module] = partial(build_encoder, **keys)
        label = f"encoder={keys['name']} on {modality.kind if spec is None else m}"
        if not tell:
            # what is wrong with it is told where the method is built
            with suppress(Exception):
                build(modality)
                kinds.append(modality.kind)
        elif report.run(label, partial(check_encoder, build, modality)):
            kinds.append(modality.kind)
    return kinds


def made_up_specs(config: DictConfig, kinds: Sequence[str]) -> dict[str, DataSpec]:
    """Two and three modalities of these kinds, for each task that the method and its fusion do."""
    usual = [kind for kind in USUAL if kind in kinds] or list(kinds) or list(USUAL)
    return {
        f"{task} of {count} modalities": describe_data(
            num_modalities=count, kinds=("image",) if TASKS[task].dense else usual, task=task
        )
        for task in tasks_of(config)
        for count in (2, 3)
    }


def tasks_of(config: DictConfig) -> list[str]:
    """Raises: UserError: method and fusion have no task in common."""
    tasks = list(TASKS)
    for key in ("method._target_", "method.fusion._target_"):
        try:
            found = get_object(OmegaConf.select(config, key, default="mmrobust.methods.base.Method"))
        except ImportError:  # told where it is built
            return tasks[:1]
        tasks = [task for task in tasks if task in getattr(found, "tasks", TASKS)]
    if not tasks:
        raise UserError(
            f"method={config.choices.method} does none of the tasks that fusion={config.choices.fusion} does; take another "
            "method or fusion"
        )
    return tasks


class Report:
    """Runs checks, prints a line for each, and counts.

    Args:
        strict: whether a refusal is a failure, as it is of data that were named.
    """

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.passed = self.failed = 0
        self.refused: dict[str, str] = {}  # label -> reason

    def run(self, label: str, check: Callable[[], object]) -> bool:
        """Whether a check holds."""
        before = self.passed
        with self._telling(label):
            check()
            self.passed += 1
            self._line("ok", label)
        return self.passed > before

    def run_all(self, label: str, checks: Iterable[tuple[str, Check]]) -> None:
        """Checks of one object, which is built when the first is asked for."""
        with self._telling(label):
            for what, check in checks:
                self.run(f"{label}: {what}", check)

    def status(self) -> int:
        """Say what was refused and how many held; 0 if all did.

        Raises:
            UserError: everything was refused.
        """
        if not self.passed + self.failed:
            raise UserError("; ".join(dict.fromkeys(self.refused.values())))
        for label, reason in self.refused.items():
            self._line("refused", f"{label}: {reason}")
        print(f"{self.passed} checks hold, {self.failed} do not")
        return 1 if self.failed else 0

    @contextmanager
    def _telling(self, label: str) -> Iterator[None]:
        """A UserError within may be a refusal, any other exception is a failure."""
        try:
            yield
        except Exception as error:
            if isinstance(error, UserError) and not self.strict:
                self.refused[label] = str(error)
                return
            self.failed += 1
            says = isinstance(error, AssertionError | UserError) and str(error)
            self._line("FAILED", f"{label}: {says or f'{type(error).__name__}: {error}'}")
            if os.environ.get("MMROBUST_TRACEBACK"):
                traceback.print_exc()

    def _line(self, word: str, text: str) -> None:
        print(f"{word:8}{text}", flush=True)
