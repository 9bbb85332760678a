"""Synthetic: generated in seconds, any number of modalities, and the best possible accuracy is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrobust import keyed
from mmrobust.combinations import all_combinations, combination_name
from mmrobust.data.base import DataModule
from mmrobust.data.families.channels import MIN_SIZE, Channel
from mmrobust.data.families.scenes import Scenes
from mmrobust.data.known_truth import BEST, NAMES, TARGETS
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.data.split import Key, Sample, Split
from mmrobust.errors import UserError
from mmrobust.files import short_hash

NOISE = 0.5  # standard deviation; that of a pattern is 1, so that nobody needs to mistake one for another
TASKS = ("classification", "segmentation", "regression", "multilabel")
MAX_TABLE = 2**25  # entries, 256 MiB


class Synthetic(DataModule):
    """For segmentation scenes, see `Scenes`; for the other tasks channels, which is what the rest tells of.

    Classes are seen through M imperfect channels, each drawn as a texture under white noise.

    The class y is uniform. Modality m tells apart only groups of classes: undisturbed, it shows the group of
    y; disturbed (probability 1 - clarity[m]), that of a decoy, a class drawn uniformly. A share `shared` of
    the samples is disturbed in common: with one decoy for all modalities, and where one is disturbed, so are
    those of lower clarity. In the rest, modalities are disturbed independently of each other. Every group has
    `variants[m]` patterns, gratings of random frequencies: the more, the more there is to learn.

    Patterns are orthogonal and the noise is low, so drawing loses nothing, and `bayes` is what the best
    method with unlimited data would reach: accuracy, in a regression the mean absolute error, of several labels the
    mean average precision.

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
        self.channels = [Channel(name, kind, size, *rest) for name, kind, *rest in keys]

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
        elif len(self.channels) < len(self.names):
            problems.append("kinds, clarity or variants is an empty list, expected a value")
        return problems + [p for channel in self.channels for p in channel.problems(self.num_classes)]

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        self.check()
        if self.task == "segmentation":
            return self.scenes.spec(self.num_samples["train"]), {
                split: self.scenes.generate(split, count) for split, count in self.num_samples.items()
            }
        modalities = {c.name: Modality(c.kind, c.shape) for c in self.channels}
        names = NAMES[self.task](self.num_classes)
        outputs = len(names) or self.num_classes
        spec = DataSpec(self.task, outputs, self.num_samples["train"], modalities, names)
        return spec, {split: self.generate(split, count) for split, count in self.num_samples.items()}

    def generate(self, split: str, count: int) -> Generated:
        """A split. More samples, or more modalities with given groups, leave the others as they are."""

        def draw(*stream: str) -> np.ndarray:
            return keyed.uniform(np.arange(count), self.seed, split, *stream)

        def draw_one_of(choices: int, *stream: str) -> np.ndarray:
            return (draw(*stream) * choices).astype(np.int64)

        classes = self.num_classes
        target, common = draw_one_of(classes, "class"), draw("shared") < self.shared
        inputs = {}
        for c in self.channels:
            disturbed = np.where(common, draw("disturbed"), draw("disturbed", c.name)) >= c.clarity
            decoy = np.where(common, draw_one_of(classes, "decoy"), draw_one_of(classes, "decoy", c.name))
            shown = c.symbols[np.where(disturbed, decoy, target)]
            clean = c.patterns(self.seed)[shown, draw_one_of(c.variants, "variant", c.name)]
            rng = np.random.default_rng(keyed.seed_of(self.seed, split, "noise", c.name))
            if c.noisy:
                clean = clean + NOISE * rng.standard_normal(clean.shape, dtype=np.float32)
            inputs[c.name] = torch.from_numpy(clean)
        return Generated(split, inputs, TARGETS[self.task](classes)[target])

    def likelihood(self, combination: Sequence[str]) -> np.ndarray:
        """P(groups shown | class): (C, tuples of groups), the last modality's group running fastest."""
        self.check()
        if self.task == "segmentation":
            raise UserError("what is best possible is not known with task=segmentation")
        if unknown := [m for m in combination if m not in self.names]:
            raise UserError(f"no modality is called {unknown[0]!r}, only {', '.join(self.names)}")
        members = [c for c in self.channels if c.name in combination]
        classes, counts = self.num_classes, [c.num_groups for c in members]
        if classes * np.prod(counts, dtype=float) > MAX_TABLE:
            raise UserError(
                f"the Bayes accuracy of {combination_name(combination)} needs a table of {classes} classes × "
                f"{' × '.join(map(str, counts))} groups, and {MAX_TABLE} entries are the limit; "
                "ask for fewer modalities, or merge more classes in data.groups"
            )
        alone = np.ones((classes, 1))
        for c in members:
            shows = np.eye(c.num_groups)[c.symbols]  # (C, groups)
            shows = c.clarity * shows + (1 - c.clarity) * shows.mean(0)
            alone = (alone[:, :, None] * shows[:, None, :]).reshape(classes, -1)
        common = np.zeros_like(alone)
        target, decoy = np.mgrid[:classes, :classes]
        for low, high in pairwise(np.unique([0, *(c.clarity for c in members), 1])):
            # The draw that decides who is disturbed lies in [low, high): those of clarity <= low are.
            shown = [c.symbols[decoy if c.clarity <= low else target] for c in members]
            np.add.at(common, (target, np.ravel_multi_index(shown, counts)), (high - low) / classes)
        return self.shared * common + (1 - self.shared) * alone

    def best(self, combination: Sequence[str]) -> float:
        """The best score possible with these modalities, exactly: see the class for what is scored.

        Raises:
            UserError: an unknown modality, or more than 2^25 combinations of class and groups shown.
        """
        joint = self.likelihood(combination) / self.num_classes
        return BEST[self.task](joint, TARGETS[self.task](self.num_classes))

    @property
    def bayes(self) -> dict[str, float]:
        """The best possible score of every combination."""
        return {combination_name(c): self.best(c) for c in all_combinations(self.names)}

    @property
    def fingerprint(self) -> str:
        """Ids and classes do not tell what the inputs were made of; these keys do."""
        parts = [super().fingerprint, self.seed, self.shared, self.channels]
        text = repr(parts if self.task == "classification" else [*parts, self.task])
        if self.task == "segmentation":
            text = repr([super().fingerprint, self.scenes])
        return short_hash(text)


class Generated(Split):
    """One split, held in memory."""

    magnitudes = False  # its spectrograms are drawn, not computed

    def __init__(self, name: str, inputs: Mapping[str, Tensor], targets: np.ndarray) -> None:
        self.inputs, self.targets = inputs, targets.tolist()
        self.tensors = torch.from_numpy(targets)
        self.ids = [f"{name}{index}" for index in range(len(targets))]
        self.present = np.ones((len(targets), len(inputs)), dtype=bool)

    def read(self, key: Key) -> dict[str, np.ndarray]:
        return {name: rows[key.index].numpy() for name, rows in self.inputs.items()}

    def finish(self, raw: dict[str, np.ndarray], key: Key) -> Sample:
        return Sample({name: torch.from_numpy(x) for name, x in raw.items()}, self.tensors[key.index])


def each(value: Any) -> Iterable[Any]:
    """A value for each modality from one for all or from a list."""
    return cycle([value] if isinstance(value, str | int | float) else value)


def halves(modalities: int, classes: int) -> list[list[int]]:
    """The default groups: modality m merges the half of the classes that begins at class m C / M."""
    half, starts = (classes + 1) // 2, [m * classes // modalities for m in range(modalities)]
    return [[max((c - start) % classes - half + 1, 0) for c in range(classes)] for start in starts]
