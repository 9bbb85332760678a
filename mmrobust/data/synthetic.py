"""Synthetic: generated in seconds, any number of modalities, and the best possible accuracy is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

from mmrobust.combinations import all_combinations, combination_name
from mmrobust.data.base import DataModule
from mmrobust.data.families.channels import MIN_SIZE, Channel, Channels
from mmrobust.data.families.scenes import Scenes
from mmrobust.data.spec import DataSpec
from mmrobust.data.split import Split
from mmrobust.errors import UserError
from mmrobust.files import short_hash

TASKS = ("classification", "segmentation", "regression", "multilabel")


class Synthetic(DataModule):
    """For segmentation scenes, see `Scenes`; for the other tasks classes behind channels, see `Channels`, of which
    `bayes` says what the best method with unlimited data would reach.

    In a regression the target is the number of the class, 0 to C - 1; of several labels it is the binary digits of
    that number, the lowest first.

    Args:
        task: classification, regression, multilabel, or segmentation, which does without the keys from `kinds` to
            `groups`.
        names: task -> what its modalities are called, if not m1, m2, ...
        num_modalities: M.
        kinds: image, depth, spectrogram, sequence, video, vector, text; `kinds`, `clarity` and `variants` are one value
            for all modalities or a list, repeated as often as needed.
        size: S of the shapes: image, depth and spectrogram (1, S, S), sequence (1, 4S), video (1, S/2, S, S),
            vector and text (4S,); scenes are 3 times as high and wide.
        num_classes: C.
        num_train, num_val, num_test: samples of the splits.
        clarity: probability that a modality is undisturbed.
        variants: patterns of each group.
        shared: share of the samples whose modalities are disturbed in common.
        groups: (M, C), the group of each class in each modality. null: modality m merges the half of the
            classes that begins at class m C / M and tells the others apart; all together merge none.
        base: see `DataModule`.
    """

    def __init__(
        self,
        *,
        task: str,
        names: Mapping[str, Sequence[str]],
        num_modalities: int,
        kinds: str | Sequence[str],
        size: int,
        num_classes: int,
        num_train: int,
        num_val: int,
        num_test: int,
        clarity: float | Sequence[float],
        variants: int | Sequence[int],
        shared: float,
        groups: Sequence[Sequence[int]] | None,
        **base: Any,
    ) -> None:
        super().__init__(root="", **base)  # nothing is read
        self.num_modalities, self.num_classes, self.shared = num_modalities, num_classes, shared
        self.num_samples = {"train": num_train, "val": num_val, "test": num_test}
        named = list(names.get(task, ()))[: max(num_modalities, 0)]
        self.names = named + [f"m{m + 1}" for m in range(len(named), num_modalities)]
        self.task, self.size = task, size
        self.scenes = Scenes(tuple(self.names), num_classes, 3 * size, self.seed)
        groups = halves(num_modalities, num_classes) if groups is None else groups
        self.groups = [list(group) if isinstance(group, Sequence) else [group] for group in groups]
        keys = zip(self.names, each(kinds), self.groups, each(clarity), each(variants), strict=False)
        members = [Channel(name, kind, size, *rest) for name, kind, *rest in keys]
        self.channels = Channels(members, task, num_classes, shared, self.seed)

    def check(self) -> None:
        """Raises: UserError: all that is wrong with the keys."""
        least = {"num_modalities": (self.num_modalities, 1), "num_classes": (self.num_classes, 2)}
        least |= {"size": (self.size, MIN_SIZE)}
        least |= {f"num_{split}": (count, 1) for split, count in self.num_samples.items()}
        problems = [f"{key}={n}, expected at least {low}" for key, (n, low) in least.items() if n < low]
        if self.task not in TASKS:
            problems.append(f"task={self.task}, expected {' or '.join(TASKS)}")
        problems += self.scenes.problems() if self.task == "segmentation" else self.channel_problems()
        if problems:
            raise UserError("data=synthetic: " + "; ".join(dict.fromkeys(problems)))

    def channel_problems(self) -> list[str]:
        """What is wrong with the keys of classification, in words."""
        problems = []
        if not 0 <= self.shared <= 1:
            problems.append(f"shared={self.shared}, expected a share in [0, 1]")
        if len(self.groups) != len(self.names):
            problems.append(f"groups has length {len(self.groups)}, expected {len(self.names)} lists")
        elif len(self.channels.members) < len(self.names):
            problems.append("kinds, clarity or variants is an empty list, expected a value")
        return problems + [p for channel in self.channels.members for p in channel.problems(self.num_classes)]

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        self.check()
        source: Scenes | Channels = self.scenes if self.task == "segmentation" else self.channels
        splits = {split: source.generate(split, count) for split, count in self.num_samples.items()}
        return source.spec(self.num_samples["train"]), dict(splits)

    def best(self, combination: Sequence[str]) -> float:
        """The best score possible with these modalities, see `Channels.best`."""
        self.check()
        if self.task == "segmentation":
            raise UserError("what is best possible is not known with task=segmentation")
        return self.channels.best(combination)

    @property
    def bayes(self) -> dict[str, float]:
        """The best possible score of every combination."""
        return {combination_name(c): self.best(c) for c in all_combinations(self.names)}

    @property
    def fingerprint(self) -> str:
        """Ids and classes do not tell what the inputs were made of; these keys do."""
        parts = [super().fingerprint, self.seed, self.shared, self.channels.members]
        text = repr(parts if self.task == "classification" else [*parts, self.task])
        if self.task == "segmentation":
            text = repr([super().fingerprint, self.scenes])
        return short_hash(text)


def each(value: Any) -> Iterable[Any]:
    """A value for each modality from one for all or from a list."""
    return cycle([value] if isinstance(value, str | int | float) else value)


def halves(modalities: int, classes: int) -> list[list[int]]:
    """The default groups: modality m merges the half of the classes that begins at class m C / M."""
    half, starts = (classes + 1) // 2, [m * classes // modalities for m in range(modalities)]
    return [[max((c - start) % classes - half + 1, 0) for c in range(classes)] for start in starts]
