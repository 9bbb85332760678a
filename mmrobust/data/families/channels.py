"""The synthetic data of classes: which pattern of each modality shows a class, and how well anybody could tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import torch
from torch import Tensor

from mmrobust import keyed
from mmrobust.combinations import combination_name
from mmrobust.data.kinds import KINDS
from mmrobust.data.known_truth import BEST, NAMES, TARGETS
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.data.split import Key, Sample, Split
from mmrobust.errors import UserError

NOISE = 0.5  # standard deviation; that of a pattern is 1, so that nobody needs to mistake one for another
MAX_TABLE = 2**25  # entries, 256 MiB
LETTERS = 4  # of a word of synthetic text
MIN_SIZE = 8  # here an ideal decoder errs with p < 1e-12, and less in anything larger


@dataclass(frozen=True)
class Channel:
    """How one modality shows a class."""

    name: str
    kind: str
    size: int
    groups: list[int]  # of each class
    clarity: float
    variants: int

    @property
    def shape(self) -> tuple[int, ...]:
        s = self.size
        shapes = {"sequence": (1, 4 * s), "video": (1, s // 2, s, s), "vector": (4 * s,), "text": (4 * s,)}
        return shapes.get(self.kind, (1, s, s))

    @property
    def noisy(self) -> bool:
        return KINDS[self.kind].noisy

    @property
    def symbols(self) -> np.ndarray:
        """The group of each class, numbered 0, 1, ..."""
        return np.unique(np.array(self.groups), return_inverse=True)[1]

    @property
    def num_groups(self) -> int:
        return len(set(self.groups))

    def patterns(self, seed: int) -> np.ndarray:
        """Gratings of mean 0 and standard deviation 1, orthogonal: (groups, variants, *shape) float32. Of text: sentences
        without a word in common, int64 code points."""
        axes, count = self.shape[1:] or self.shape, self.num_groups * self.variants
        rng = np.random.default_rng(keyed.seed_of(seed, "patterns", self.name))
        if self.kind == "text":
            return sentences(rng, count, self.shape[0]).reshape(self.num_groups, self.variants, -1)
        chosen = rng.permutation(frequencies(axes))[:count]
        position = np.indices(axes).T / axes  # in [0, 1); the axes come last first
        waves = np.sqrt(2) * np.cos(2 * np.pi * (position @ chosen.T).T)
        return waves.astype(np.float32).reshape(self.num_groups, self.variants, *self.shape)

    def problems(self, num_classes: int) -> list[str]:
        """What is wrong with it, in words."""
        most = len(frequencies(self.shape[1:] or self.shape)) // max(self.num_groups, 1)
        length, variants = len(self.groups), f"variants of {self.name}={self.variants}"
        rules = [
            (self.size >= MIN_SIZE, f"size={self.size}, expected at least {MIN_SIZE}"),
            (self.kind in KINDS, f"kinds has {self.kind!r}, expected {', '.join(KINDS)}"),
            (0 <= self.clarity <= 1, f"clarity has {self.clarity}, expected probabilities in [0, 1]"),
            (
                length == num_classes,
                f"groups of {self.name} has length {length}, expected {num_classes} classes",
            ),
            (1 <= self.variants <= most, f"{variants}, expected 1 to {most}; larger sizes allow more"),
        ]
        return [problem for kept, problem in rules if not kept]


@dataclass(frozen=True)
class Channels:
    """Classes seen through M imperfect channels, each drawn as a texture under white noise.

    The class y is uniform. Modality m tells apart only groups of classes: undisturbed, it shows the group of
    y; disturbed (probability 1 - clarity[m]), that of a decoy, a class drawn uniformly. A share `shared` of
    the samples is disturbed in common: with one decoy for all modalities, and where one is disturbed, so are
    those of lower clarity. In the rest, modalities are disturbed independently of each other. Every group has
    `variants[m]` patterns, gratings of random frequencies: the more, the more there is to learn.

    Patterns are orthogonal and the noise is low, so drawing loses nothing, and `best` is what the best method with
    unlimited data would reach.

    Args:
        members: the channels.
        task: which `known_truth` knows: what the targets are.
        num_classes: C.
        shared: share of the samples that are disturbed in common.
        seed: of the dataset.
    """

    members: list[Channel]
    task: str
    num_classes: int
    shared: float
    seed: int

    def spec(self, num_train: int) -> DataSpec:
        modalities = {c.name: Modality(c.kind, c.shape) for c in self.members}
        names = NAMES[self.task](self.num_classes)
        return DataSpec(self.task, len(names) or self.num_classes, num_train, modalities, names)

    def generate(self, split: str, count: int) -> Generated:
        """A split. More samples, or more modalities with given groups, leave the others as they are."""

        def draw(*stream: str) -> np.ndarray:
            return keyed.uniform(np.arange(count), self.seed, split, *stream)

        def draw_one_of(choices: int, *stream: str) -> np.ndarray:
            return (draw(*stream) * choices).astype(np.int64)

        classes = self.num_classes
        target, common = draw_one_of(classes, "class"), draw("shared") < self.shared
        inputs = {}
        for c in self.members:
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
        """P(groups shown | class): (C, tuples of groups), the last modality's group running fastest.

        Raises:
            UserError: an unknown modality, or more than 2^25 combinations of class and groups shown.
        """
        names = [c.name for c in self.members]
        if unknown := [m for m in combination if m not in names]:
            raise UserError(f"no modality is called {unknown[0]!r}, only {', '.join(names)}")
        members = [c for c in self.members if c.name in combination]
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
        """The best score possible with these modalities, exactly: accuracy, in a regression the mean absolute error, of
        several labels the mean average precision. Raises as `likelihood`."""
        joint = self.likelihood(combination) / self.num_classes
        return BEST[self.task](joint, TARGETS[self.task](self.num_classes))


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


def sentences(rng: np.random.Generator, count: int, length: int) -> np.ndarray:
    """Code points (count, length) of words of LETTERS small letters, each of which occurs once."""
    words = length // (LETTERS + 1)
    drawn = rng.choice(26**LETTERS, size=(count, words), replace=False)
    letters = drawn[..., None] // 26 ** np.arange(LETTERS) % 26 + ord("a")
    blanks = np.full((count, words, 1), ord(" "))
    points = np.concatenate([letters, blanks], 2).reshape(count, -1)
    return np.pad(points, ((0, 0), (0, length - points.shape[1])))


def frequencies(axes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Whole cycles along the axes; not 0, not Nyquist, one of f and -f: their cosines are orthogonal."""
    ranges = [range(-((n - 1) // 2), (n - 1) // 2 + 1) for n in axes]
    return [f for f in product(*ranges) if f > (0,) * len(axes)]
