"""One modality of the synthetic classification data: which pattern shows a class."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from mmrobust import keyed
from mmrobust.data.kinds import KINDS

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
